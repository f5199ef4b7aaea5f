# shellcheck shell=bash
# What a fresh machine needs, by Debian package name. Sourced by tests/run and the commands in perf/:
#
#	setup_need build tests
#
# With apt-get and root, what is missing is installed (one `apt-get update` at most, nothing when all is there). Otherwise it is
# named and the caller ends with status 1.

setup_arch=$(uname -m)
PATH=$PATH:/usr/sbin:/sbin # where Debian keeps ethtool; not in every user's path

# A group's packages: "package:probe", where the probe says without the package manager whether the thing is there: a command,
# a pkg-config module (pc/NAME), a header (h/FILE), a file (f/PATH), clang's sanitizers (rt/VERSION), a Python module (py/NAME) or a cargo of at
# least 1.N (cargo/N).
setup_group()
{
	case $1 in
	build)
		echo gcc:cmd/gcc libc6-dev:h/stdio.h meson:cmd/meson ninja-build:cmd/ninja pkg-config:cmd/pkg-config \
			libck-dev:pc/ck liburcu-dev:pc/liburcu-qsbr libsodium-dev:pc/libsodium libb2-dev:pc/libb2 \
			libmnl-dev:pc/libmnl libjansson-dev:pc/jansson libssl-dev:pc/libcrypto
		[ "$setup_arch" != x86_64 ] || echo libipsec-mb-dev:h/intel-ipsec-mb.h
		;;
	python) # to run the commands of perf/, which check their arguments before they ask for more
		echo python3:cmd/python3
		;;
	netns) # to put two ends into namespaces and drive them
		echo python3:cmd/python3 wireguard-tools:cmd/wg iproute2:cmd/ip iputils-ping:cmd/ping iperf3:cmd/iperf3 \
			ethtool:cmd/ethtool jq:cmd/jq util-linux:cmd/nsenter
		;;
	tests)
		setup_group netns
		echo libcriterion-dev:pc/criterion clang-14:cmd/clang-14 libclang-rt-14-dev:rt/14 \
			wireguard-go:cmd/wireguard-go valgrind:cmd/valgrind mandoc:cmd/mandoc gdb:cmd/gdb \
			clang-format-14:cmd/clang-format-14 clang-tidy-14:cmd/clang-tidy-14 shellcheck:cmd/shellcheck
		;;
	aarch64) # headers only; optional
		echo clang-14:cmd/clang-14 libc6-dev-arm64-cross:f/usr/aarch64-linux-gnu/include/stdio.h
		;;
	plot) # to draw the results of perf/threads
		echo python3-matplotlib:py/matplotlib
		;;
	flamegraph) # to record; what draws the graphs is compiled with cargo
		echo linux-perf:cmd/perf
		;;
	cargo) # new enough for the renderer of perf/flamegraph; Debian 12 keeps that one under another name
		echo gcc:cmd/gcc libc6-dev:h/stdio.h
		if grep -qs '^VERSION_ID="12"' /etc/os-release; then echo cargo-web:cargo/71; else echo cargo:cargo/71; fi
		;;
	micro) # to count instructions; valgrind's headers come with it
		echo python3:cmd/python3 valgrind:cmd/valgrind
		;;
	peers) # to install the programs that perf/compare measures against
		echo wireguard-go:cmd/wireguard-go
		;;
	*)
		echo "setup: no such group: $1" >&2
		return 1
		;;
	esac
}

# The Python of the distribution: modules installed by apt are not seen by another one that may come first in PATH.
setup_python()
{
	if [ -x /usr/bin/python3 ]; then
		echo /usr/bin/python3
	else
		command -v python3
	fi
}

setup_present()
{
	local what=${1#*/}

	case $1 in
	cmd/*) command -v "$what" >/dev/null || [ -x "/usr/sbin/$what" ] || [ -x "/sbin/$what" ] ;;
	pc/*) command -v pkg-config >/dev/null && pkg-config --exists "$what" ;;
	h/*) [ -e "/usr/include/$what" ] || echo "#include <$what>" | ${CC:-cc} -E -x c - >/dev/null 2>&1 ;;
	f/*) [ -e "/$what" ] ;;
	py/*) "$(setup_python)" -c "import $what" 2>/dev/null ;;
	cargo/*) cargo --version 2>/dev/null | { IFS=' .' read -r _ major minor _ && { [ "$major" -gt 1 ] || [ "$minor" -ge "$what" ]; }; } ;;
	rt/*) compgen -G "/usr/lib/llvm-$what/lib/clang/*/lib/linux/libclang_rt.asan*" >/dev/null ;;
	esac
}

setup_missing()
{
	local group entry

	for group in "$@"; do
		for entry in $(setup_group "$group"); do
			setup_present "${entry#*:}" || echo "${entry%%:*}"
		done
	done | sort -u
}

setup_need()
{
	local missing

	missing=$(setup_missing "$@" | xargs)
	[ -n "$missing" ] || return 0
	if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ] && [ -z "${SLUICE_NO_INSTALL:-}" ]; then
		echo "setup: installing $missing" >&2
		# shellcheck disable=SC2086 # a list of names
		setup_apt $missing || return 1
		missing=$(setup_missing "$@" | xargs)
		[ -n "$missing" ] || return 0
	fi
	echo "setup: missing (Debian package names): $missing" >&2
	if command -v apt-get >/dev/null; then
		echo "setup: as root: apt-get install $missing" >&2
	else
		echo "setup: install what provides them on this system and run again" >&2
	fi
	return 1
}

setup_apt()
{
	local log

	log=$(mktemp) || return 1
	# The lists of a long-lived machine may be good enough; those of a fresh container are empty or stale.
	if ! setup_apt_install "$@" >"$log" 2>&1 &&
		! { apt-get update >>"$log" 2>&1; setup_apt_install "$@" >>"$log" 2>&1; }; then
		tail -n 20 "$log" >&2
		rm -f "$log"
		return 1
	fi
	rm -f "$log"
}

setup_apt_install()
{
	DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@" </dev/null
}

# setup_build DIR [meson arguments...]: configures and compiles; shows the output only when it fails.
setup_build()
{
	local dir=$1 log

	shift
	log=$(mktemp) || return 1
	if ! { [ -e "$dir/build.ninja" ] || meson setup "$dir" "$@"; } >"$log" 2>&1 || ! ninja -C "$dir" sluice >>"$log" 2>&1; then
		cat "$log" >&2
		rm -f "$log"
		return 1
	fi
	rm -f "$log"
}
