# Cross build for 64-bit Arm with Debian's gcc-aarch64-linux-gnu; programs run under QEMU's user mode (qemu-user-static), whose environment
# variable QEMU_CPU names the processor to be.
#
#   cmake -G Ninja -S . -B build-arm -DCMAKE_TOOLCHAIN_FILE=cmake/aarch64-linux-gnu.cmake -DTT_CORE=ON
#
# Without TT_CORE the libraries of tools/install_deps.sh are needed for arm64 as well, with PKG_CONFIG_LIBDIR pointing at them.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64-static -L /usr/aarch64-linux-gnu)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
