#!/bin/sh
# Compile programs of this folder: build.sh FOLDER NAME... Each becomes FOLDER/NAME; `libraries`
# brings its 60 libraries with it. None has frame pointers but Go's.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
folder=$1
shift
for name; do
	case $name in
	omit) gcc -O2 -fomit-frame-pointer -o "$folder/omit" "$here/omit.c" ;;
	shapes) g++ -O2 -fomit-frame-pointer -o "$folder/shapes" "$here/shapes.cpp" ;;
	traits) rustc -O -C force-frame-pointers=no -o "$folder/traits" "$here/traits.rs" ;;
	routines)
		GO111MODULE=off GOFLAGS= GOCACHE="${GOCACHE:-$folder/go}" \
			go build -o "$folder/routines" "$here/routines.go"
		;;
	libraries) sh "$here/libraries.sh" "$folder" ;;
	*)
		echo "build.sh: no program $name" >&2
		exit 2
		;;
	esac
done
