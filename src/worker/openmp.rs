//! How libtorch's threads wait for each other.

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::{env, io};

/// The variable of OpenMP that says it.
const POLICY: &str = "OMP_WAIT_POLICY";

/// Starts this program again in this process, with OpenMP's threads asleep while they wait, unless
/// the environment says already how they wait. Threads that spin take the processor from other
/// workers and from the rest of the machine: two workers with as many threads as there are cores
/// slow each other down by five to ten times. The library reads the variable when it is loaded,
/// which is before the first line of this program: so this comes first, before anything is opened
/// or begun.
///
/// # Errors
/// Why it could not be started again. Nothing is lost then but the other workers' time.
pub fn wait_asleep() -> io::Result<()> {
    if env::var_os(POLICY).is_some() {
        return Ok(());
    }
    let mut arguments = env::args_os();
    let mut again = Command::new("/proc/self/exe");
    if let Some(name) = arguments.next() {
        again.arg0(name);
    }
    Err(again.args(arguments).env(POLICY, "PASSIVE").exec())
}
