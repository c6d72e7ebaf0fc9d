//! Compiles the protos to Rust and tells the linker where libtorch is.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() -> Result<(), Box<dyn Error>> {
    compile_protos()?;
    lay_out_console()?;
    if env::var_os("CARGO_FEATURE_TORCH").is_some() {
        link_libtorch()?;
    }
    Ok(())
}

/// Every file of the public contract, compiled by protox so that no `protoc` is needed. The
/// descriptors, with their comments, are also written to `OUT_DIR/palimpsest.bin`: reflection
/// serves them and the contract's tests read them.
fn compile_protos() -> Result<(), Box<dyn Error>> {
    let root = Path::new("proto");
    println!("cargo:rerun-if-changed={}", root.display());
    let mut protos: Vec<PathBuf> = fs::read_dir(root.join("palimpsest/v1"))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    protos.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "proto")
    });
    protos.sort(); // the folder's order differs between file systems, the output must not

    let mut compiler = protox::Compiler::new([root])?;
    compiler.include_imports(true).include_source_info(true);
    compiler.open_files(&protos)?;
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    fs::write(
        out.join("palimpsest.bin"),
        compiler.encode_file_descriptor_set(),
    )?;
    // Without the generated `connect` of a client, which would clash with the rpc of that name.
    tonic_prost_build::configure()
        .build_transport(false)
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}

/// The files of the console, as src/web/console/build.mjs makes them.
const CONSOLE: [&str; 5] = ["index.html", "main.js", "main.css", "icon.svg", "help.html"];

/// What is served where they were not built.
const NOTICE: &str = "<!doctype html>
<html lang=\"en\">
<meta charset=\"utf-8\">
<title>Palimpsest</title>
<h1>This palimpsest was built without the console's pages</h1>
<p>Everything else of it works: its commands, and the calls of other programs.</p>
<p>To have the pages, run these in its sources, on a machine with Node 18 or later and npm:</p>
<pre>deploy/setup.sh
cargo build --release</pre>
</html>
";

/// Lays the console's files where `src/web/files.rs` embeds them from: those that deploy/setup.sh
/// built and linked as `.deps/console`, or the notice alone. npm is never called here: builds break
/// where it is not, or has nobody to ask.
fn lay_out_console() -> Result<(), Box<dyn Error>> {
    let built = Path::new(".deps/console");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?).join("console");
    fs::create_dir_all(&out)?;
    let is_whole = CONSOLE.iter().all(|name| built.join(name).is_file());
    if is_whole {
        // A path that is not there would have cargo run this each time. deploy/setup.sh touches
        // this file when it links the folder.
        println!("cargo:rerun-if-changed={}", built.display());
    }
    println!("cargo:rerun-if-changed=build.rs");
    for name in CONSOLE {
        let content = match (is_whole, name) {
            (true, _) => fs::read(built.join(name))?,
            (false, "index.html") => NOTICE.into(),
            (false, _) => Vec::new(),
        };
        fs::write(out.join(name), content)?;
    }
    Ok(())
}

/// torch-sys tells cargo where to find libtorch while linking; this writes the same folder into
/// the programs and tests, so that they start without `LD_LIBRARY_PATH`.
fn link_libtorch() -> Result<(), Box<dyn Error>> {
    let lib = env::var("DEP_TCH_LIBTORCH_LIB")
        .map_err(|_| "torch-sys must be a direct dependency: it names libtorch's folder")?;
    // The link .deps/libtorch is resolved: a program copied elsewhere outlives the checkout.
    let lib = fs::canonicalize(&lib)
        .map_err(|error| format!("no libtorch in {lib} ({error}): run deploy/setup.sh"))?;
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", lib.display());
    if lib.join("libtorch_cuda.so").exists() {
        // Nothing calls into this library: it registers its kernels while it is loaded. Left to
        // --as-needed, the linker drops it and CUDA is reported as not available.
        println!("cargo:rustc-link-arg=-Wl,--no-as-needed,-ltorch_cuda,--as-needed");
    }
    Ok(())
}
