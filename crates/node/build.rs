//! Links as an addon, and compiles how SQLite locks files here.

fn main() {
    napi_build::setup();
    println!("cargo:rerun-if-changed=src/locks.c");
    let is_unix = std::env::var_os("CARGO_CFG_UNIX").is_some();
    if is_unix {
        let include = std::env::var("DEP_SQLITE3_INCLUDE");
        cc::Build::new()
            .file("src/locks.c")
            .include(include.expect("libsqlite3-sys says where its header is"))
            .compile("syncline_locks");
    }
}
