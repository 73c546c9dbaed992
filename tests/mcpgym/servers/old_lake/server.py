"""A lake for a server of reward-kit's, as its users write them: the command."""

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from lake_mcp import LakeMcp


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--transport", choices=["streamable-http", "stdio"], default="streamable-http")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--seed", type=int, default=None)
    args = parser.parse_args()
    if args.transport == "streamable-http":
        os.environ["PORT"] = str(args.port)
    server = LakeMcp(seed=args.seed)
    print(f"starting on port {args.port}")
    server.run(transport=args.transport)


if __name__ == "__main__":
    main()
