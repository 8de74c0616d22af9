//! Keeps the rides of bikes, finds cycles among them, and serves them over HTTP.

use bike_share::BikeShare;

fn main() -> std::process::ExitCode {
    consumer::run_with(BikeShare::NAME, BikeShare::of_args)
}
