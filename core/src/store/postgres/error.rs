//! What PostgreSQL's errors mean to a caller.

use tokio_postgres::error::{DbError, SqlState};

use crate::{Error, ErrorKind};

/// Maps an error of a statement or a connection. The text never has the values of a row: the server's detail is left out.
#[allow(clippy::needless_pass_by_value, reason = "it is what map_err hands over")]
pub(super) fn of(error: tokio_postgres::Error) -> Error {
    let mapped = match error.as_db_error() {
        Some(answer) => refused(answer),
        None if error.is_closed() => Error::new(ErrorKind::ConnectionFailed, "the connection to the database is gone"),
        None => Error::new(ErrorKind::ConnectionFailed, format!("the database cannot be reached: {error}"))
            .remedy("check host, port and network"),
    };
    mapped.source(error.to_string())
}

fn refused(answer: &DbError) -> Error {
    let code = answer.code();
    let message = answer.message();
    let (kind, remedy) = if [SqlState::INVALID_PASSWORD, SqlState::INVALID_AUTHORIZATION_SPECIFICATION].contains(code) {
        (ErrorKind::AccessRefused, "check user and password of the store URL")
    } else if *code == SqlState::INSUFFICIENT_PRIVILEGE {
        (ErrorKind::AccessRefused, "grant the user SELECT, INSERT, UPDATE and DELETE on the tables of Tidings")
    } else if *code == SqlState::UNDEFINED_DATABASE {
        (ErrorKind::AccessRefused, "create the database, or correct the store URL's path")
    } else if [SqlState::UNDEFINED_TABLE, SqlState::UNDEFINED_COLUMN, SqlState::INVALID_SCHEMA_NAME].contains(code) {
        (ErrorKind::InvalidOption, "install() the tables, or run the SQL of outbox_schema")
    } else if *code == SqlState::UNIQUE_VIOLATION {
        (ErrorKind::InvalidEvent, "an event with this id was written before: ids are used once")
    } else if *code == SqlState::DISK_FULL {
        (ErrorKind::StoreFull, "free space on the database server")
    } else if code.code().starts_with("57P") || code.code().starts_with("08") || code.code().starts_with("53") {
        (ErrorKind::ConnectionFailed, "try again: the server is starting, stopping or out of connections")
    } else if [SqlState::T_R_DEADLOCK_DETECTED, SqlState::T_R_SERIALIZATION_FAILURE, SqlState::LOCK_NOT_AVAILABLE]
        .contains(code)
    {
        (ErrorKind::StoreBusy, "try again: another transaction was in the way")
    } else {
        (ErrorKind::Internal, "report this with the cause")
    };
    Error::new(kind, format!("the database refused a statement ({}): {message}", code.code())).remedy(remedy)
}
