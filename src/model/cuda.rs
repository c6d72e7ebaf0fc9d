//! libtorch's part for GPUs, which is loaded where it lies beside the part for CPUs: so one program
//! runs on either.

use std::ffi::CStr;
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

/// The PCI address of a GPU by its number here, `0000:01:00.0`, by which the driver's other libraries
/// know it: those count also what `CUDA_VISIBLE_DEVICES` hides, and in another order. `None` where
/// the driver does not say.
pub fn address(gpu: usize) -> Option<String> {
    type Address = unsafe extern "C" fn(text: *mut u8, room: i32, device: i32) -> i32;
    let mut text = [0u8; 32];
    let found = of_driver(gpu, |driver, device| {
        // SAFETY: as cuda.h declares it. It writes a text that ends in a zero, within the room that
        // is named.
        #[allow(unsafe_code)]
        unsafe {
            let address = driver.get::<Address>(b"cuDeviceGetPCIBusId\0").ok()?;
            Some(address(text.as_mut_ptr(), text.len() as i32, device) == 0)
        }
    });
    let text = found?.then(|| CStr::from_bytes_until_nul(&text).ok())??;
    text.to_str().ok().map(str::to_owned)
}

/// Bytes of memory of a GPU by its number here; of a part of one, where a GPU is divided, those of
/// the part. `None` where the driver does not say.
pub fn memory(gpu: usize) -> Option<u64> {
    type Memory = unsafe extern "C" fn(bytes: *mut usize, device: i32) -> i32;
    let mut bytes = 0;
    let found = of_driver(gpu, |driver, device| {
        // SAFETY: as cuda.h declares it. It writes one number.
        #[allow(unsafe_code)]
        unsafe {
            let memory = driver.get::<Memory>(b"cuDeviceTotalMem_v2\0").ok()?;
            Some(memory(&raw mut bytes, device) == 0)
        }
    });
    found?.then_some(bytes as u64)
}

/// Asks the driver about a GPU, by its number here.
fn of_driver<T>(gpu: usize, ask: impl FnOnce(&Library, i32) -> Option<T>) -> Option<T> {
    type Init = unsafe extern "C" fn(flags: u32) -> i32;
    type Get = unsafe extern "C" fn(device: *mut i32, number: i32) -> i32;
    let number = i32::try_from(gpu).ok()?;
    let mut device = 0;
    // SAFETY: loading runs the initialisers of the driver's own library, which libtorch's part for
    // GPUs needs too. The signatures are those of cuda.h; the second writes one handle.
    #[allow(unsafe_code)]
    let (driver, found) = unsafe {
        let driver = Library::open(Some("libcuda.so.1"), RTLD_NOW).ok()?;
        let found = driver.get::<Init>(b"cuInit\0").ok()?(0) == 0
            && driver.get::<Get>(b"cuDeviceGet\0").ok()?(&raw mut device, number) == 0;
        (driver, found)
    };
    found.then(|| ask(&driver, device)).flatten()
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
    fn the_driver_knows_the_gpus_that_libtorch_sees_and_no_others() {
        for gpu in 0..gpus() {
            assert!(address(gpu).unwrap().contains(':'));
            assert!(memory(gpu).unwrap() > 1 << 30);
        }
        assert_eq!((address(1_000), memory(usize::MAX)), (None, None));
    }

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
