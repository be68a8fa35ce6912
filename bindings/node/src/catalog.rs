//! The catalog: requests and results as JSON, and subscriptions by `broker:topic`.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use napi_derive::napi;
use tidings::catalog::{
    BrokersService, Catalog as Core, CatalogOptions, MessageBroker, PublishRequest, SubscribeRequest, VerifiedSession,
};
use tidings::{Error, ErrorKind, Result};

use crate::bridge::{Answer, Bridge, Shared};
use crate::broker::Broker;
use crate::log;
use crate::runtime;

/// Where the catalog comes from.
#[napi(object)]
pub struct CatalogSettings {
    /// The catalog itself, as JSON.
    pub declared: Option<String>,
    pub path: Option<String>,
    pub product: Option<String>,
    pub env: Option<String>,
}

/// A session that the program has verified itself.
#[napi(object)]
pub struct Verified {
    pub tag: String,
    pub subject: Option<String>,
}

/// A catalog of JavaScript, read when it is first needed.
#[napi]
pub struct Catalog {
    bridge: Arc<Shared>,
    settings: Arc<CatalogSettings>,
    core: Arc<OnceLock<MessageBroker>>,
}

#[napi]
impl Catalog {
    /// Nothing is read before the first call.
    #[napi(constructor)]
    pub fn new(bridge: &Bridge, settings: CatalogSettings) -> Self {
        Self { bridge: bridge.shared(), settings: Arc::new(settings), core: Arc::default() }
    }

    /// Publishes; answers the result as JSON.
    #[napi]
    pub fn publish(&self, op: u32, request: String, verified: Option<Verified>) {
        self.run(op, |core| async move {
            let mut request = PublishRequest::from_json(&request)?;
            request.verified_session = verified.map(verified_session);
            json(&core.publish(request).await?)
        });
    }

    /// Does what `operation` names; answers its result as JSON.
    #[napi]
    pub fn call(&self, op: u32, operation: String, request: String) {
        self.run(
            op,
            |core| async move { BrokersService::new(core).call(&operation, &request).await.map(Answer::Json) },
        );
    }

    /// Connects `broker` to where a topic's events come from; its next subscription is the topic's. Answers its name.
    #[napi]
    pub fn topic(&self, op: u32, broker: &Broker, request: String, verified: Option<Verified>) {
        let inner = broker.inner();
        self.run(op, |core| async move {
            let mut request = SubscribeRequest::from_json(&request)?;
            request.verified_session = verified.map(verified_session);
            let (broker, options) = core.subscription(&request).await?;
            let name = serde_json::Value::from(options.spec.name.as_str()).to_string();
            inner.connected(broker, options);
            Ok(Answer::Json(name))
        });
    }

    /// Lets go of every broker.
    #[napi]
    pub fn close(&self, op: u32) {
        match self.core.get() {
            Some(_) => self.run(op, |core| async move { core.close().await.map(|()| Answer::Nothing) }),
            None => self.bridge.answer(op, Ok(Answer::Nothing)),
        }
    }

    fn run<F, W>(&self, op: u32, work: W)
    where
        W: FnOnce(MessageBroker) -> F + Send + 'static,
        F: Future<Output = Result<Answer>> + Send + 'static,
    {
        log::install();
        let handle = match runtime::shared() {
            Ok(handle) => handle,
            Err(error) => return self.bridge.answer(op, Err(error)),
        };
        let (slot, settings) = (self.core.clone(), self.settings.clone());
        self.bridge.run(&handle, op, async move {
            let core = if let Some(core) = slot.get() {
                core.clone()
            } else {
                let made = MessageBroker::new(open(&settings)?);
                slot.get_or_init(|| made).clone()
            };
            work(core).await
        });
    }
}

fn open(settings: &CatalogSettings) -> Result<Core> {
    let declared = settings.declared.as_deref().map(serde_json::from_str).transpose().map_err(|error| {
        Error::new(ErrorKind::CatalogInvalid, format!("the catalog is not JSON: {error}")).remedy("pass plain values")
    })?;
    Core::open(CatalogOptions {
        declared,
        path: settings.path.as_ref().map(PathBuf::from),
        product: settings.product.clone(),
        env: settings.env.clone(),
        ..CatalogOptions::default()
    })
}

fn verified_session(session: Verified) -> VerifiedSession {
    VerifiedSession { tag: session.tag, subject: session.subject, verified: true }
}

fn json(published: &tidings::catalog::Published) -> Result<Answer> {
    serde_json::to_string(published)
        .map(Answer::Json)
        .map_err(|error| Error::new(ErrorKind::Internal, "a result has no JSON form").source(error))
}
