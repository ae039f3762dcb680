//! Stores the name `libcublasLt.so` inside the stand-in library, so that a test that has loaded it
//! from the build folder finds it again under that name, without a library path.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libcublasLt.so");
}
