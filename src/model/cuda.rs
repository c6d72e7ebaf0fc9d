//! libtorch's part for GPUs, which is loaded where it lies beside the part for CPUs: so one program
//! runs on either.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
use tch::Cuda;

/// The part for CPUs, which this program is linked with, and the one for GPUs.
const PARTS: (&str, &str) = ("libtorch_cpu.so", "libtorch_cuda.so");

/// How many GPUs libtorch sees.
pub fn gpus() -> usize {
    static LOADED: OnceLock<()> = OnceLock::new();
    LOADED.get_or_init(|| {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
        let Some(library) = missing(&maps) else {
            return;
        };
        if let Err(error) = load(&library) {
            tracing::warn!(
                library = %library.display(),
                %error,
                "libtorch's part for GPUs cannot be loaded: the CPU computes"
            );
        }
    });
    Cuda::device_count().max(0) as usize
}

/// The library for GPUs that lies beside the one for CPUs and is not loaded, by what is mapped into
/// this process: a line ends in the path of its file.
fn missing(maps: &str) -> Option<PathBuf> {
    let path_of = |name: &str| {
        let mut paths = maps
            .lines()
            .filter_map(|line| Some(&line[line.find('/')?..]));
        paths.find(|path| path.ends_with(&format!("/{name}")))
    };
    if path_of(PARTS.1).is_some() {
        return None;
    }
    let beside = Path::new(path_of(PARTS.0)?).with_file_name(PARTS.1);
    beside.exists().then_some(beside)
}

/// Loads a library for good. Nothing of it is called from here: it tells libtorch of its kernels
/// while it is loaded.
fn load(library: &Path) -> Result<(), libloading::Error> {
    // SAFETY: loading runs the initialisers of the library. It is the one that this libtorch was
    // shipped with, in its own folder, and is made to be loaded after it.
    #[allow(unsafe_code)]
    let loaded = unsafe { Library::open(Some(library), RTLD_NOW | RTLD_GLOBAL) }?;
    std::mem::forget(loaded);
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_part_for_gpus_is_looked_for_beside_the_one_for_cpus_and_loaded_once() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        let line = |path: &str| format!("7f00-7f01 r-xp 00000000 08:01 42    {path}\n");
        let cpu = line(&at(PARTS.0));
        assert_eq!(missing(&cpu), None);
        std::fs::write(at(PARTS.1), "no library").unwrap();
        assert_eq!(missing(&cpu), Some(folder.path().join(PARTS.1)));
        assert_eq!(missing(&(cpu.clone() + &line(&at(PARTS.1)))), None);
        assert_eq!(missing(&line("/lib/libc.so.6")), None);
        assert_eq!(missing(""), None);
        // What cannot be loaded is said, and no more.
        let error = load(&folder.path().join(PARTS.1)).unwrap_err();
        assert!(error.to_string().contains(PARTS.1), "{error}");
    }
}
