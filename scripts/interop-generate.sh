#!/usr/bin/env bash
# Generates Go types and stubs from the .proto files into tests/interop/gen, which git ignores: types and clients for grpc-go,
# and below gen/gogo types of gogo/protobuf, which Go programs of this protocol use.
#
# Use: scripts/interop-generate.sh BIN, where BIN is a directory for protoc's plugins.
set -euo pipefail
cd "$(dirname "$0")/../tests/interop"
mkdir -p "$1"
bin=$(cd "$1" && pwd)
GOBIN=$bin go install tool

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
files=(broker/protocol/protocol.proto consumer/recoverylog/recorded_op.proto consumer/protocol/protocol.proto word_count.proto)
packages=(protocol recoverylog consumer wordcount)

# A copy of the .proto files, which says where the Go packages are.
copy() { # DIR IMPORT-PATH
  local i
  mkdir -p "$1"
  cp -r ../../proto/broker ../../proto/consumer ../../examples/word-count/word_count.proto "$1"
  for i in "${!files[@]}"; do echo "option go_package = \"$2/${packages[i]}\";" >> "$1/${files[i]}"; done
}
generate() { # PLUGIN PROTO-DIR OPTIONS
  local file
  for file in "${files[@]}"; do
    protoc -I "$2" --plugin="$bin/protoc-gen-$1" "--$1_out=$3:$work/out" "$file"
  done
}
mkdir "$work/out"
copy "$work/go" interop/gen
generate go "$work/go" ""
generate go-grpc "$work/go" ""
copy "$work/gogo" interop/gen/gogo
# gogo's generator is older than `optional` in proto3. The word changes nothing on the wire.
sed -i -E 's/^( *)optional /\1/' "$work/gogo/broker/protocol/protocol.proto"
generate gogo "$work/gogo" "Mgoogle/protobuf/duration.proto=github.com/gogo/protobuf/types"
rm -rf gen
mv "$work/out/interop/gen" gen
