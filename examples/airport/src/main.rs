//! A real day of events at New York's airports, played on Tidings.
//!
//! `airport` alone is the director, who plays the whole day; `airport aircraft-log` is the service in Rust. The others are
//! beside this crate: `operations.py`, `relay.py`, `notifier.js`. See `README.md` there.

mod aircraft_log;
mod audit;
mod books;
mod director;
mod flights;
mod ledger;
mod role;
mod stage;
mod story;
mod table;

use std::path::Path;
use std::process::ExitCode;

use tidings::BoxError;

use crate::role::{Report, Role};

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/flights-2013-02-08.csv");

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        [] => play().await,
        [service, options @ ..] => match serve(service, options).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                Report::Failed(error.to_string()).send();
                ExitCode::FAILURE
            }
        },
    }
}

async fn play() -> ExitCode {
    let data = std::env::var_os(role::DATA_VARIABLE).unwrap_or_else(|| DATA.into());
    match director::run(Path::new(&data)).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            explain(&error);
            // What shells report for Ctrl-C.
            if error.is::<director::Interrupted>() { ExitCode::from(130) } else { ExitCode::FAILURE }
        }
    }
}

async fn serve(service: &str, options: &[&str]) -> Result<(), BoxError> {
    if service == aircraft_log::NAME {
        return aircraft_log::run(Role::begin().await?, aircraft_log::Options::parse(options)?).await;
    }
    Err("usage: airport [aircraft-log [--fixed] [--hold-at N]]".into())
}

/// Errors of the engine know what can be done about them.
fn explain(error: &BoxError) {
    match error.downcast_ref::<tidings::Error>() {
        Some(error) => {
            eprintln!("The demo cannot go on.\n  {}: {}", error.code(), error.message());
            if let (Some(field), Some(value)) = (error.field_name(), error.field_value()) {
                eprintln!("  where:   {field} = {value}");
            }
            if let Some(remedy) = error.remedy_text() {
                eprintln!("  remedy:  {remedy}");
            }
        }
        None => eprintln!("The demo cannot go on: {error}"),
    }
}
