//! Random interleavings from a seed, checked against what a subscription promises.

use std::collections::{BTreeMap, HashMap, HashSet};

use fastrand::Rng;

use super::*;

const SLOTS: usize = 3;

/// What the model knows of one event of one subscription.
#[derive(Debug, Default)]
struct Known {
    key: Option<String>,
    lost: u32,
    attempt: i64,
    handled: bool,
    finished: bool,
    dead: bool,
    not_before: Option<Instant>,
}

struct Slot {
    source: Option<Arc<dyn Source>>,
    held: Vec<Incoming>,
}

struct Model {
    name: &'static str,
    spec: SubscriptionSpec,
    events: HashMap<String, Known>,
    /// Ids in the order of acceptance.
    keys: BTreeMap<String, Vec<String>>,
    slots: Vec<Slot>,
    deliveries: usize,
}

impl Model {
    async fn new(transport: &MemoryTransport, name: &'static str, ordered: Option<KeyOrder>) -> Self {
        let spec = spec(name, "#", ordered);
        drop(transport.subscribe(&spec).await.unwrap());
        let slots = (0..SLOTS).map(|_| Slot { source: None, held: Vec::new() }).collect();
        Self { name, spec, events: HashMap::new(), keys: BTreeMap::new(), slots, deliveries: 0 }
    }

    fn accepted(&mut self, id: &str, key: Option<&str>) {
        let key = key.filter(|_| self.spec.ordered.is_some());
        self.events.insert(id.to_owned(), Known { key: key.map(str::to_owned), ..Known::default() });
        if let Some(key) = key {
            self.keys.entry(key.to_owned()).or_default().push(id.to_owned());
        }
    }

    async fn fetch(&mut self, transport: &MemoryTransport, slot: usize, max: usize) -> bool {
        if self.slots[slot].source.is_none() {
            self.slots[slot].source = Some(transport.subscribe(&self.spec).await.unwrap());
        }
        let source = self.slots[slot].source.clone().unwrap();
        let batch = now(&source, max).await;
        assert!(batch.len() <= max);
        let out: HashSet<String> =
            self.slots.iter().flat_map(|slot| &slot.held).map(|i| i.message.id.to_string()).collect();
        let keys_out: HashSet<&String> = out.iter().filter_map(|id| self.events[id].key.as_ref()).collect();
        for incoming in &batch {
            let id = &*incoming.message.id;
            let known = self.events.get(id).unwrap_or_else(|| panic!("{id} was invented"));
            assert!(!known.finished && !known.dead, "{id} came after its end");
            assert!(!out.contains(id), "{id} is out twice");
            assert!(known.key.as_ref().is_none_or(|key| !keys_out.contains(key)), "the key of {id} is out twice");
            assert_eq!(incoming.lost_deliveries, known.lost, "{id}");
            assert_eq!(incoming.message.headers.int(name::ATTEMPT).unwrap_or(0), known.attempt, "{id}");
            assert!(known.not_before.is_none_or(|at| at <= Instant::now()), "{id} is early");
        }
        let any = !batch.is_empty();
        self.deliveries += batch.len();
        self.slots[slot].held.extend(batch);
        any
    }

    /// Handles the first event that a slot holds of some key, as an engine does, and settles it.
    async fn handle(&mut self, rng: &mut Rng, slot: usize, calm: bool) {
        if self.slots[slot].held.is_empty() {
            return;
        }
        let picked = rng.usize(..self.slots[slot].held.len());
        let key = self.events[&*self.slots[slot].held[picked].message.id].key.clone();
        let at = match &key {
            Some(key) => self.slots[slot].held.iter().position(|i| i.message.key.as_deref() == Some(key)).unwrap(),
            None => picked,
        };
        let id = self.slots[slot].held[at].message.id.to_string();
        self.check_order(&id);
        self.events.get_mut(&id).unwrap().handled = true;
        let dice = if calm { 0 } else { rng.u8(..12) };
        let delay = Duration::from_millis(rng.u64(..5_000));
        let attempt = self.events[&id].attempt + 1;
        let settlement = || {
            let headers = [(name::ATTEMPT, attempt)].into_iter().collect();
            match dice {
                0..6 => Settlement::Ack,
                6 => Settlement::Release,
                7 | 8 => Settlement::Retry { delay, headers },
                9 | 10 => Settlement::DeadLetter { headers },
                _ => Settlement::Suspect { headers },
            }
        };
        let ordering = self.spec.ordered.unwrap_or_default();
        let stops = match dice {
            6 | 11 => true,
            7 | 8 => ordering.on_retry == OnRetry::Wait,
            9 | 10 => ordering.on_dead == OnDead::Park,
            _ => false,
        };
        let source = self.slots[slot].source.clone().unwrap();
        let incoming = self.slots[slot].held.remove(at);
        insist(&source, &incoming, settlement).await;
        let known = self.events.get_mut(&id).unwrap();
        match dice {
            0..6 => known.finished = true,
            6 => {}
            7 | 8 => (known.lost, known.attempt, known.not_before) = (0, attempt, Some(Instant::now() + delay)),
            9 | 10 => known.dead = true,
            _ => (known.lost, known.attempt) = (0, attempt),
        }
        if stops {
            self.let_go(slot, key.as_deref()).await;
        }
    }

    /// Releases what else a slot holds of a key.
    async fn let_go(&mut self, slot: usize, key: Option<&str>) {
        let Some(key) = key else { return };
        let source = self.slots[slot].source.clone().unwrap();
        let (rest, kept) = std::mem::take(&mut self.slots[slot].held)
            .into_iter()
            .partition::<Vec<_>, _>(|incoming| incoming.message.key.as_deref() == Some(key));
        self.slots[slot].held = kept;
        for incoming in rest {
            insist(&source, &incoming, || Settlement::Release).await;
        }
    }

    /// An event is first handled when all earlier ones of its key were; and where nothing is passed or skipped, never
    /// before all of them are done.
    fn check_order(&self, id: &str) {
        let Some(key) = &self.events[id].key else { return };
        let strict = self.spec.ordered == Some(KeyOrder::default());
        for earlier in self.keys[key].iter().take_while(|earlier| *earlier != id) {
            let earlier = &self.events[earlier];
            assert!(if strict { earlier.finished } else { earlier.handled }, "{id} of {key} overtook {earlier:?}");
        }
    }

    async fn lose(&mut self, rng: &mut Rng, transport: &MemoryTransport) {
        let slot = rng.usize(..SLOTS);
        match rng.u8(..4) {
            0 => {
                transport.faults().crash(self.name);
                self.lost();
                self.slots.iter_mut().for_each(|slot| slot.source = None);
            }
            1 => {
                transport.faults().cut(self.name);
                self.lost();
                transport.faults().restore();
            }
            2 => {
                if let Some(source) = self.slots[slot].source.take() {
                    source.close().await;
                }
                self.slots[slot].held.clear();
            }
            _ => {
                self.slots[slot].source = None;
                self.slots[slot].held.clear();
            }
        }
    }

    fn lost(&mut self) {
        for incoming in self.slots.iter_mut().flat_map(|slot| slot.held.drain(..)) {
            self.events.get_mut(&*incoming.message.id).unwrap().lost += 1;
        }
    }

    async fn dead_letters(&mut self, rng: &mut Rng, transport: &MemoryTransport) {
        let mut walk = transport.dead_letters(self.name).await.unwrap();
        let found = walk.next(usize::MAX).await.unwrap();
        assert_eq!(found.len(), self.events.values().filter(|known| known.dead).count());
        for dead in found.into_iter().take(rng.usize(1..4)) {
            let known = self.events.get_mut(&*dead.message.id).unwrap();
            assert!(known.dead);
            known.dead = false;
            if rng.u8(..3) == 0 {
                walk.discard(vec![dead.token]).await.remove(0).unwrap();
                known.finished = true;
            } else {
                let headers = tidings::settlement::replayed(&dead.message.headers);
                walk.replay(vec![(dead.token, dead.message.with_headers(headers))]).await.remove(0).unwrap();
                (known.lost, known.attempt, known.not_before) = (0, 0, None);
            }
        }
    }

    /// Acknowledges and replays until nothing is left.
    async fn drain(&mut self, rng: &mut Rng, transport: &MemoryTransport) {
        for _ in 0..10_000 {
            let mut any = false;
            for slot in 0..SLOTS {
                any |= self.fetch(transport, slot, 50).await;
                while !self.slots[slot].held.is_empty() {
                    self.handle(rng, slot, true).await;
                }
            }
            if self.events.values().any(|known| known.dead) {
                self.dead_letters(rng, transport).await;
            } else if !any {
                tokio::time::advance(SECOND).await;
                if self.events.values().all(|known| known.finished) {
                    break;
                }
            }
        }
        let lost: Vec<_> = self.events.iter().filter(|(_, known)| !known.finished).collect();
        assert!(lost.is_empty(), "lost: {lost:?}");
        assert_eq!(info(transport, self.name).await, info_of(self.name, 0, 0, 0));
    }
}

/// Settles again as long as that may help. A stale delivery was settled by the call before, whose answer was lost.
async fn insist(source: &Arc<dyn Source>, incoming: &Incoming, settlement: impl Fn() -> Settlement) {
    let mut failed = false;
    while let Err(error) = settle(source, incoming, settlement()).await {
        assert!(error.retryable() || (failed && error.code() == "STALE_DELIVERY"), "{error}");
        if !error.retryable() {
            return;
        }
        failed = true;
    }
}

async fn run(seed: u64) -> usize {
    let mut rng = Rng::with_seed(seed);
    let transport = MemoryTransport::new();
    let chances = Chances::seeded(seed)
        .fail(Operation::Publish, When::Before, 0.05)
        .fail(Operation::Publish, When::After, 0.05)
        .fail(Operation::Settle, When::Before, 0.05)
        .fail(Operation::Settle, When::After, 0.05);
    transport.faults().random(chances);
    let orders = [
        None,
        ordered(OnRetry::Wait, OnDead::Park),
        ordered(OnRetry::Pass, OnDead::Skip),
        ordered(OnRetry::Pass, OnDead::Park),
    ];
    let mut models = Vec::new();
    for (name, order) in ["plain", "strict", "loose", "mixed"].into_iter().zip(orders) {
        models.push(Model::new(&transport, name, order).await);
    }
    let mut published = 0;
    for _ in 0..300 {
        let model = rng.usize(..models.len());
        let slot = rng.usize(..SLOTS);
        match rng.u8(..20) {
            0..4 => {
                let mut batch = Vec::new();
                for _ in 0..rng.usize(1..6) {
                    published += 1;
                    let key = ["a", "b", "c", ""][rng.usize(..4)];
                    batch.push(message("a.b", &published.to_string(), Some(key).filter(|key| !key.is_empty())));
                }
                for (sent, result) in batch.iter().zip(transport.publish(batch.clone()).await) {
                    if result.is_ok() || result.is_err_and(|error| error.outcome_unknown()) {
                        for model in &mut models {
                            model.accepted(&sent.id, sent.key.as_deref());
                        }
                    }
                }
            }
            4..8 => drop(models[model].fetch(&transport, slot, rng.usize(1..12)).await),
            8..17 => models[model].handle(&mut rng, slot, false).await,
            17 => models[model].lose(&mut rng, &transport).await,
            18 => models[model].dead_letters(&mut rng, &transport).await,
            _ => tokio::time::advance(Duration::from_millis(rng.u64(..3_000))).await,
        }
    }
    transport.faults().clear();
    let mut deliveries = 0;
    for model in &mut models {
        model.drain(&mut rng, &transport).await;
        deliveries += model.deliveries;
    }
    deliveries
}

/// `TIDINGS_SEED` runs one seed, `TIDINGS_SEEDS` that many.
#[tokio::test(start_paused = true)]
async fn random_interleavings_keep_the_promise() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = number("TIDINGS_SEED").map_or(0..number("TIDINGS_SEEDS").unwrap_or(300), |seed| seed..seed + 1);
    let mut deliveries = 0;
    for seed in seeds {
        // The seed of a failure is the last one that was printed.
        println!("seed {seed}");
        deliveries += run(seed).await;
    }
    println!("{deliveries} deliveries");
}
