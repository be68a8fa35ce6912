//! Writing a catalog's file: whole or not at all, one writer at a time.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::{Error, ErrorKind, Result};

/// Held while a file is read, changed and written. Released when it is dropped, or with the process.
pub(super) struct Locked {
    _file: File,
    path: PathBuf,
}

impl Locked {
    /// Waits for other writers of `path`.
    pub(super) fn acquire(path: &Path) -> Result<Self> {
        // A lock of its own: the catalog's file is replaced, and a lock on what was replaced excludes nobody.
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".lock");
        let lock = path.with_file_name(name);
        let file =
            OpenOptions::new().create(true).truncate(false).write(true).open(&lock).map_err(|e| unwritable(path, e))?;
        file.lock().map_err(|e| unwritable(path, e))?;
        Ok(Self { _file: file, path: path.to_owned() })
    }

    /// Replaces the file: readers see the old one or the new one.
    pub(super) fn write(&self, value: &Value) -> Result<()> {
        let mut text = serde_json::to_string_pretty(value)
            .map_err(|e| Error::new(ErrorKind::Internal, "the catalog has no JSON form").source(e))?;
        text.push('\n');
        let mut name = self.path.file_name().unwrap_or_default().to_owned();
        name.push(".new");
        let new = self.path.with_file_name(name);
        let written = self.replace(&new, text.as_bytes());
        if written.is_err() {
            // What is left of it is of no use; that it cannot be removed is less than why it could not be written.
            drop(fs::remove_file(&new));
        }
        written.map_err(|e| unwritable(&self.path, e))
    }

    fn replace(&self, new: &Path, bytes: &[u8]) -> std::io::Result<()> {
        let mut file = File::create(new)?;
        if let Ok(old) = fs::metadata(&self.path) {
            file.set_permissions(old.permissions())?;
        }
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(new, &self.path)
    }
}

fn unwritable(path: &Path, error: std::io::Error) -> Error {
    Error::new(ErrorKind::CatalogInvalid, format!("the catalog cannot be written: {}", error.kind()))
        .field("catalog", path.display())
        .remedy("make the file and its folder writable for this user")
        .source(error)
}
