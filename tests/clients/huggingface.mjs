// Pushes the files of FOLDER to NAME with npm's client, reads all back, and prints what it saw as JSON.
// The token comes by the environment: node huggingface.mjs HUB NAME FOLDER
import { createHash } from "node:crypto";
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { commit, createRepo, downloadFile, listFiles, uploadFiles, whoAmI } from "@huggingface/hub";

const [hubUrl, name, folder] = process.argv.slice(2);
const accessToken = process.env.HF_TOKEN;
const to = { hubUrl, accessToken, repo: { type: "model", name } };

const names = readdirSync(folder, { recursive: true, withFileTypes: true })
  .filter((file) => file.isFile())
  .map((file) => join(file.parentPath ?? file.path, file.name).slice(folder.length + 1))
  .sort();
const user = (await whoAmI({ hubUrl, accessToken })).name;
await createRepo({ ...to, visibility: "private" });
const files = names.map((path) => ({ path, content: new Blob([readFileSync(join(folder, path))]) }));
await uploadFiles({ ...to, files, commitTitle: "npm" });
await commit({
  ...to,
  title: "more",
  operations: [
    { operation: "addOrUpdate", path: "more.txt", content: new Blob(["more"]) },
    { operation: "addOrUpdate", path: "gone.txt", content: new Blob(["gone"]) },
  ],
});
await commit({ ...to, title: "less", operations: [{ operation: "delete", path: "gone.txt" }] });

const seen = {};
for await (const file of listFiles({ ...to, recursive: true })) {
  if (file.type !== "file") continue;
  const blob = await downloadFile({ ...to, path: file.path });
  const data = Buffer.from(await blob.arrayBuffer());
  const digest = createHash("sha256").update(data).digest("hex");
  seen[file.path] = { size: file.size, large: file.lfs?.oid ?? null, sha256: digest };
}
console.log(JSON.stringify({ user, seen }));
