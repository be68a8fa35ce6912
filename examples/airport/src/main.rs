//! A real day of events at New York's airports, played on Tidings.
//!
//! `airport` alone plays the whole day; `airport operations`, `airport notifier` and `airport aircraft-log` are its
//! services, each a process of its own. See `README.md` beside this crate.

mod aircraft_log;
mod audit;
mod director;
mod flights;
mod ledger;
mod notifier;
mod operations;
mod role;
mod stage;
mod story;
mod table;
mod waits;

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
    match director::run(Path::new(DATA)).await {
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
    match (service, options) {
        (operations::NAME, []) => operations::run(Role::begin().await?, Path::new(DATA)).await,
        (notifier::NAME, []) => notifier::run(Role::begin().await?).await,
        (aircraft_log::NAME, options) => {
            let options = aircraft_log::Options::parse(options)?;
            aircraft_log::run(Role::begin().await?, options).await
        }
        _ => Err("usage: airport [operations | notifier | aircraft-log [--fixed] [--hold-at N]]".into()),
    }
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
