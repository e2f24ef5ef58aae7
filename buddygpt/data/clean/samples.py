from dataclasses import dataclass, field

import xxhash


@dataclass
class Samples:
    rows: dict = field(default_factory=dict)

    def add(self, reason, place, text, detail, after):
        own = self.rows.setdefault(reason, [])
        own.append(
            [
                xxhash.xxh3_64_intdigest(text.encode("utf-8", "replace")),
                place,
                text[:600],
                detail,
                after and after[:600],
            ]
        )
        own.sort()
        del own[5:]

    def merge(self, other):
        for k, rows in other.rows.items():
            own = self.rows.setdefault(k, [])
            own += rows
            own.sort()
            del own[5:]

    def as_dict(self):
        return self.rows

    @classmethod
    def from_dict(cls, d):
        return cls(d)
