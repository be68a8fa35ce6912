//! Routing through the trie beside trying every binding.

use std::hint::black_box;
use std::time::Instant;

use tidings::routing::{Trie, matches};

use crate::measure::{BoxError, Contender, Sample};
use crate::options::Options;
use crate::results::Results;

const BINDINGS: usize = 10_000;

/// Measures.
pub(crate) fn run(options: &Options, results: &mut Results) -> Result<(), BoxError> {
    let bindings: Vec<String> = (0..BINDINGS)
        .map(|i| match i % 4 {
            0 => format!("domain{}.created", i / 4),
            1 => format!("domain{}.*", i / 4),
            2 => format!("*.event{}", i / 4),
            _ => format!("domain{}.#.done", i / 4),
        })
        .collect();
    let mut trie = Trie::new();
    for (i, key) in bindings.iter().enumerate() {
        trie.insert(key, i);
    }
    let keys: Vec<String> = (0..BINDINGS / 4).map(|i| format!("domain{i}.created")).collect();
    let measure = |find: &dyn Fn(&str) -> usize| {
        let (started, mut done) = (Instant::now(), 0usize);
        while started.elapsed() < options.length / 4 {
            for key in keys.iter().skip(done % 97).step_by(97) {
                black_box(find(key));
                done += 1;
            }
        }
        #[allow(clippy::cast_precision_loss, reason = "a rate")]
        let rate = done as f64 / started.elapsed().as_secs_f64();
        Sample { rate, client_cpu: Some(1e6 / rate), broker_cpu: None }
    };
    let mut contenders = vec![
        Contender::new("tidings (trie)", true, || {
            let sample = measure(&|key| trie.matches(key).len());
            async move { Ok(sample) }
        }),
        Contender::new("every binding tried", false, || {
            let sample = measure(&|key| bindings.iter().filter(|binding| matches(binding, key)).count());
            async move { Ok(sample) }
        }),
    ];
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    runtime.block_on(crate::measure::alternate(options, &mut contenders))?;
    results.compare("routing over 10,000 bindings", &contenders, None);
    Ok(())
}
