//! The engine's log lines on their way to the loggers of JavaScript.

use std::fmt::{self, Write as _};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::bridge::Shared;

/// Every environment gets every line: which of them a connection belongs to is not known here.
static LISTENERS: Mutex<Vec<Weak<Shared>>> = Mutex::new(Vec::new());

/// Sends lines to this environment, as long as it lives.
pub(crate) fn listen(bridge: &Arc<Shared>) {
    let mut listeners = LISTENERS.lock();
    listeners.retain(|one| one.strong_count() > 0);
    listeners.push(Arc::downgrade(bridge));
}

/// Listens from now on. A second call changes nothing.
pub(crate) fn install() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        // It fails only if the process has a subscriber already, which in a library of our own nobody can have set.
        let _first = tracing::subscriber::set_global_default(Lines);
    });
}

/// Passes warnings and errors on; spans are switched off where they are made.
struct Lines;

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= Level::WARN && metadata.target().starts_with("tidings")
    }

    fn max_level_hint(&self) -> Option<tracing::level_filters::LevelFilter> {
        Some(tracing::level_filters::LevelFilter::WARN)
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = Text::default();
        event.record(&mut text);
        let level = if *event.metadata().level() == Level::ERROR { "error" } else { "warn" };
        let line = serde_json::json!({
            "level": level, "message": format!("{}{}", text.message, text.fields), "target": event.metadata().target(),
        });
        let listeners: Vec<_> = LISTENERS.lock().iter().filter_map(Weak::upgrade).collect();
        for listener in listeners {
            listener.log(line.to_string());
        }
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing into a string cannot fail.
        let _infallible = if field.name() == "message" {
            write!(self.message, "{value:?}")
        } else {
            write!(self.fields, " {}={value:?}", field.name())
        };
    }
}
