//! A network and a mount table of one's own, for faults that need them: partitions and disks that fill up.
//!
//! [`enter`] starts the program again inside new namespaces, so that whatever it adds there (links, firewall rules, mounts)
//! is its own and goes away with its last process, however that ends. It needs root; without it the program runs as it is,
//! and the faults that need a sandbox are left out.

use std::os::unix::process::CommandExt;
use std::process::Command;

/// Set for the program inside.
const MARK: &str = "COURANT_SANDBOX";

/// What runs inside, before the program: named network namespaces are private too, and loopback is up.
const PREPARE: &str = "mkdir -p /run/netns && mount -t tmpfs -o mode=755 none /run/netns \
    && ip link set lo up && exec \"$0\" \"$@\"";

/// Starts this program again in a sandbox, if it may have one and is not in one. Returns if it is, or may not.
/// Must be called before any thread is started.
pub fn enter() {
    if is_inside() || !is_possible() {
        return;
    }
    let program = std::env::current_exe().expect("the running program has a path");
    let failure = Command::new("unshare")
        .args(["--net", "--mount", "--propagation=private", "--", "sh", "-c", PREPARE])
        .arg(program)
        .args(std::env::args_os().skip(1))
        .env(MARK, "1")
        .exec();
    eprintln!("sandbox: unshare: {failure}: going on without");
}

/// Whether this program runs in a sandbox.
pub fn is_inside() -> bool {
    #[expect(clippy::disallowed_methods, reason = "a mark that the program sets for itself")]
    std::env::var(MARK).is_ok()
}

/// Whether everything that a sandbox needs is there, and permitted.
fn is_possible() -> bool {
    let probe = "mount -t tmpfs none /mnt && ip netns list && iptables -w -L INPUT";
    let outcome = Command::new("unshare")
        .args(["--net", "--mount", "--propagation=private", "--", "sh", "-c", probe])
        .output();
    outcome.is_ok_and(|output| output.status.success())
}
