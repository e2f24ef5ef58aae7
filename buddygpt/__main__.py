"""`python -m buddygpt`: what torchrun and accelerate launch."""

from buddygpt.cli.app import main

if __name__ == "__main__":
    main()
