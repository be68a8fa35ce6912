//! Wall clocks that can be set, one for each process: a library between the process and the C library's clock.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::servers::Refused;

const SOURCE: &str = include_str!("clocks/clock.c");

/// The library, and a folder with one file for each process.
pub(crate) struct Clocks {
    library: PathBuf,
    folder: PathBuf,
}

impl Clocks {
    /// Builds the library.
    pub(crate) fn new(folder: &Path) -> Result<Self, Refused> {
        if !cfg!(all(target_os = "linux", target_env = "gnu")) {
            return Err(Refused::Skip("a process's clock is set on Linux with glibc only".to_owned()));
        }
        let failed = |error: std::io::Error| Refused::Failed(error.to_string());
        let (source, library) = (folder.join("clock.c"), folder.join("clock.so"));
        std::fs::write(&source, SOURCE).map_err(failed)?;
        let built = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source).output();
        let built = built.map_err(|e| Refused::Skip(format!("cc: {e}")))?;
        if !built.status.success() {
            return Err(Refused::Failed(String::from_utf8_lossy(&built.stderr).into_owned()));
        }
        Ok(Self { library, folder: folder.to_owned() })
    }

    /// Has a program that is about to start take its time from here.
    pub(crate) fn wind(&self, program: &mut Command, number: usize) -> std::io::Result<()> {
        let file = self.file(number);
        std::fs::write(&file, 0i64.to_ne_bytes())?;
        program.env("LD_PRELOAD", &self.library).env("TIDINGS_CLOCK", file);
        Ok(())
    }

    /// Sets a process's clock to so many seconds beside the true time.
    pub(crate) fn set(&self, number: usize, seconds: i64) -> std::io::Result<()> {
        use std::io::Write as _;
        // In place: the process has it mapped.
        std::fs::OpenOptions::new().write(true).open(self.file(number))?.write_all(&seconds.to_ne_bytes())
    }

    fn file(&self, number: usize) -> PathBuf {
        self.folder.join(format!("clock-{number}"))
    }
}
