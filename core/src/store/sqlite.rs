//! SQLite, by way of the one thread that has a file open in this process.

use async_trait::async_trait;

use super::driver::{Driver, Output};
use super::{Component, Dialect, Statement, schema};
use crate::outbox::WakeUp;
use crate::transport::sqlite::{Answer, Statements};
use crate::{Error, ErrorKind, Result};

/// A SQLite file.
#[derive(Debug)]
pub(crate) struct Sqlite {
    file: Statements,
}

impl Sqlite {
    /// Opens it.
    pub(crate) async fn connect(url: &str) -> Result<Self> {
        Ok(Self { file: Statements::connect(url).await? })
    }
}

#[async_trait]
impl Driver for Sqlite {
    fn dialect(&self) -> Dialect {
        Dialect::Sqlite
    }

    fn lease_clock(&self) -> &'static str {
        // Of the boot, which nobody sets: a lease must not end early or live for ever because of the wall clock.
        "tidings_now()"
    }

    async fn run(&self, statement: Statement) -> Result<Output> {
        let mut outputs = self.transaction(vec![statement]).await?;
        outputs.pop().ok_or_else(|| Error::new(ErrorKind::Internal, "a statement has no answer"))
    }

    async fn transaction(&self, statements: Vec<Statement>) -> Result<Vec<Output>> {
        Ok(self.file.run(statements).await?.into_iter().map(output).collect())
    }

    async fn install(&self, component: &Component) -> Result<()> {
        let component = component.clone();
        self.file
            .run_upon(vec![component.prepare(), component.version()], move |found| {
                let found = schema::found(&found.into_iter().map(output).next_back().unwrap_or_default());
                Ok(if component.is_current(found)? { Vec::new() } else { component.upgrade(found) })
            })
            .await
    }

    async fn listen(&self, _: &str) -> Result<Option<Box<dyn WakeUp>>> {
        Ok(None)
    }

    async fn close(&self) -> Result<()> {
        self.file.close().await
    }
}

fn output((rows, affected): Answer) -> Output {
    Output { rows, affected }
}
