//! Where a server listens, and by which name others know it.

use std::io;

/// The host of a server which nobody reaches from another machine.
pub const LOOPBACK: &str = "127.0.0.1";
/// The host of a server which is reached by every name of its machine.
pub const ANY_HOST: &str = "0.0.0.0";

/// The address to listen on and the host to advertise, of a server with these options. One which `is_single` is for its own
/// machine alone, unless its host is another one.
///
/// # Errors
/// If there is no host, and this machine does not tell its name.
pub fn listen(is_single: bool, host: Option<String>, port: &str) -> io::Result<(String, String)> {
    let is_loopback = is_single && host.as_deref().is_none_or(|host| matches!(host, "localhost" | LOOPBACK));
    let host = match host {
        Some(host) => host,
        None if is_single => LOOPBACK.to_owned(),
        None => host_name()?,
    };
    Ok((bind_address(is_loopback, port), host))
}

/// The address to listen on at `port`, which may be `unix:///path`.
pub fn bind_address(is_loopback: bool, port: &str) -> String {
    match (port.starts_with("unix://"), is_loopback) {
        (true, _) => port.to_owned(),
        (false, true) => format!("{LOOPBACK}:{port}"),
        (false, false) => format!("{ANY_HOST}:{port}"),
    }
}

fn host_name() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/hostname")?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_for_one_machine_is_on_loopback_unless_it_has_another_host() {
        let name = host_name().unwrap();
        for (is_single, host, port, bind, advertised) in [
            (true, None, "8080", "127.0.0.1:8080", "127.0.0.1"),
            (true, Some("localhost"), "1", "127.0.0.1:1", "localhost"),
            (true, Some("db.lan"), "0", "0.0.0.0:0", "db.lan"),
            (false, None, "0", "0.0.0.0:0", name.as_str()),
            (false, Some("127.0.0.1"), "0", "0.0.0.0:0", "127.0.0.1"),
            (true, None, "unix:///run/x", "unix:///run/x", "127.0.0.1"),
        ] {
            let got = listen(is_single, host.map(str::to_owned), port).unwrap();
            assert_eq!(got, (bind.to_owned(), advertised.to_owned()), "{host:?} {port}");
        }
    }
}
