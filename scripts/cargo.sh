#!/usr/bin/env bash
# cargo, with the RocksDB library that was built once.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
exports=$("$here/rocksdb.sh")
eval "$exports"
cd "$here/.."
exec cargo "$@"
