//! Tells the linker where libtorch lies at run time.
//!
//! The run path that `tch` sets reaches only its own targets, so the programs
//! and tests of this crate set theirs: the wheel's `torch/lib`, where libtorch
//! finds the rest of itself.

use std::path::Path;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    if let Some(libtorch) = std::env::var_os("LIBTORCH") {
        let libraries = Path::new(&libtorch).join("lib");
        println!("cargo:rustc-link-arg=-Wl,-rpath,{}", libraries.display());
    }
}
