//! Build script of the N-API package: sets the linker flags an addon needs.
fn main() {
    napi_build::setup();
}
