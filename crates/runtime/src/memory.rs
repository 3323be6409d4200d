//! The memory of models and runs: who holds how much of it, and what runs have read, kept for later ones.
//!
//! Weights and runs hold theirs; a run holds as much as it can come to need before it begins. When it
//! ends, the keys and values of its tokens may be kept: a later prompt that begins alike starts from
//! there. Kept ones share their pages, which count once, and go when somebody needs the room.
//!
//! What is counted is never less than what is used: a run that shares pages holds memory for all of its own.

use althing_exact::KvCache;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Fewer common tokens are not worth a copy.
pub(crate) const REUSE_TOKENS_MIN: usize = 16;
/// Most sequences that are kept: bounds the search among them.
const KEPT_MAX: usize = 256;

/// Memory for models and runs, up to a limit.
pub struct Memory {
    max_bytes: u64,
    kept_max_bytes: u64,
    freed: Box<dyn Fn() + Send + Sync>,
    state: Mutex<State>,
}

/// How much is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// By weights and runs.
    pub held_bytes: u64,
    /// By what was read earlier.
    pub kept_bytes: u64,
    /// The most that both were together.
    pub peak_bytes: u64,
}

#[derive(Default)]
struct State {
    held_bytes: u64,
    peak_bytes: u64,
    /// Counts uses: what has the lowest number was used least recently.
    uses: u64,
    kept: Vec<Kept>,
    /// The pages of all kept sequences: in how many of them each is.
    pages: BTreeMap<usize, Page>,
    kept_bytes: u64,
}

struct Page {
    sequences: usize,
    bytes: u64,
}

/// A sequence of tokens with their keys and values.
struct Kept {
    /// The engine that made them.
    engine: u64,
    tokens: Vec<u32>,
    cache: KvCache,
    used: u64,
}

impl State {
    fn used(&mut self) -> u64 {
        self.uses += 1;
        self.uses
    }

    fn add(&mut self, kept: Kept) {
        for (page, bytes) in kept.cache.pages_in_memory() {
            let bytes = bytes as u64;
            let page = self.pages.entry(page).or_insert(Page { sequences: 0, bytes });
            page.sequences += 1;
            if page.sequences == 1 {
                self.kept_bytes += bytes;
            }
        }
        self.kept.push(kept);
    }

    fn remove(&mut self, index: usize) {
        for (id, _) in self.kept.swap_remove(index).cache.pages_in_memory() {
            let page = self.pages.get_mut(&id).expect("pages of what is kept are counted");
            page.sequences -= 1;
            if page.sequences == 0 {
                self.kept_bytes -= page.bytes;
                self.pages.remove(&id);
            }
        }
    }

    fn oldest(&self) -> Option<usize> {
        (0..self.kept.len()).min_by_key(|index| self.kept[*index].used)
    }

    /// The kept sequence of `engine` that begins most like `tokens`, and how many tokens that is.
    fn longest(&self, engine: u64, tokens: &[u32]) -> Option<(usize, usize)> {
        let of_engine = self.kept.iter().enumerate().filter(|(_, kept)| kept.engine == engine);
        of_engine.map(|(index, kept)| (common(&kept.tokens, tokens), index)).max()
    }
}

/// How many tokens both begin with.
pub(crate) fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

impl Memory {
    /// Memory of at most `max_bytes`, of which at most `kept_max_bytes` are kept for later runs. `freed`
    /// is called whenever there may be more room.
    pub fn new(max_bytes: u64, kept_max_bytes: u64, freed: impl Fn() + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { max_bytes, kept_max_bytes, freed: Box::new(freed), state: Mutex::default() })
    }

    /// The limit.
    pub fn max_bytes(&self) -> u64 {
        self.max_bytes
    }

    /// How much is used now.
    pub fn usage(&self) -> Usage {
        let State { held_bytes, kept_bytes, peak_bytes, .. } = *self.state();
        Usage { held_bytes, kept_bytes, peak_bytes }
    }

    /// Takes `bytes` if there is room for them; nothing that is kept gives way.
    pub fn hold(self: &Arc<Self>, bytes: u64) -> Option<Hold> {
        let mut state = self.state();
        let left = self.max_bytes.saturating_sub(state.held_bytes).saturating_sub(state.kept_bytes);
        (bytes <= left).then(|| {
            state.held_bytes += bytes;
            state.peak_bytes = state.peak_bytes.max(state.held_bytes + state.kept_bytes);
            Hold { memory: self.clone(), bytes }
        })
    }

    /// The number of a use that happens now: higher than all before.
    pub fn use_now(&self) -> u64 {
        self.state().used()
    }

    /// When the kept sequence that was used least recently was used.
    pub fn oldest_kept(&self) -> Option<u64> {
        let state = self.state();
        state.oldest().map(|index| state.kept[index].used)
    }

    /// Forgets that sequence.
    pub fn forget_oldest(&self) {
        let mut state = self.state();
        if let Some(oldest) = state.oldest() {
            state.remove(oldest);
        }
    }

    /// How many of the first of `tokens` some kept sequence begins with.
    pub(crate) fn kept_tokens(&self, engine: u64, tokens: &[u32]) -> usize {
        self.state().longest(engine, tokens).map_or(0, |(count, _)| count)
    }

    /// A copy of that sequence's keys and values.
    pub(crate) fn reuse(&self, engine: u64, tokens: &[u32]) -> Option<KvCache> {
        let mut state = self.state();
        let (count, index) = state.longest(engine, tokens)?;
        state.kept[index].used = state.used();
        let mut cache = state.kept[index].cache.clone();
        cache.truncate(count);
        Some(cache)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Memory that somebody has until this is dropped.
pub struct Hold {
    memory: Arc<Memory>,
    bytes: u64,
}

impl Hold {
    /// How much it is.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Gives back all but `bytes`.
    pub fn shrink(&mut self, bytes: u64) {
        let back = self.bytes.saturating_sub(bytes);
        self.bytes -= back;
        self.memory.state().held_bytes -= back;
        (self.memory.freed)();
    }

    /// Takes over what another holds.
    pub fn merge(&mut self, mut other: Self) {
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// Keeps, in its place, what a run of `engine` has read: the `tokens` that `cache` has seen.
    pub(crate) fn keep(mut self, engine: u64, tokens: Vec<u32>, cache: KvCache) {
        let memory = self.memory.clone();
        let mut state = memory.state();
        // In one step: nobody else gets the room between.
        state.held_bytes -= std::mem::take(&mut self.bytes);
        let begins_alike = |a: &[u32], b: &[u32]| a.len() <= b.len() && common(a, b) == a.len();
        let used = state.used();
        if let Some((count, index)) = state.longest(engine, &tokens)
            && count == tokens.len()
        {
            state.kept[index].used = used;
        } else if tokens.len() >= REUSE_TOKENS_MIN {
            // What is the beginning of this is not needed beside it.
            while let Some(index) =
                state.kept.iter().position(|kept| kept.engine == engine && begins_alike(&kept.tokens, &tokens))
            {
                state.remove(index);
            }
            state.add(Kept { engine, tokens, cache, used });
        }
        while state.kept.len() > KEPT_MAX
            || state.kept_bytes > memory.kept_max_bytes
            || state.held_bytes + state.kept_bytes > memory.max_bytes
        {
            let Some(oldest) = state.oldest() else { break };
            state.remove(oldest);
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.memory.state().held_bytes -= self.bytes;
        (self.memory.freed)();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Package, engine::ChatEngine};
    use althing_exact::Scratch;
    use std::{
        path::Path,
        sync::atomic::{AtomicUsize, Ordering},
    };

    fn engine() -> Arc<ChatEngine> {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../exact/tests/fixtures/llama.gguf");
        let engine = crate::load(&Package::from_path(&file).unwrap(), 1).unwrap();
        Arc::<dyn crate::Engine>::from(engine).chat().unwrap()
    }

    /// What a run holds and has read.
    fn read(engine: &ChatEngine, memory: &Arc<Memory>, tokens: &[u32]) -> (Hold, KvCache) {
        let decoder = engine.model().decoder();
        let hold = memory.hold(decoder.cache_bytes(tokens.len()) as u64).unwrap();
        let mut cache = memory.reuse(engine.key(), tokens).unwrap_or_else(|| decoder.cache());
        let rest = &tokens[cache.tokens().min(tokens.len() - 1)..];
        cache.truncate(tokens.len() - rest.len());
        decoder.forward(&mut cache, rest, engine.plan(), &mut Scratch::default());
        (hold, cache)
    }

    #[test]
    fn what_is_held_never_passes_the_limit_and_comes_back() {
        let freed = Arc::new(AtomicUsize::new(0));
        let count = freed.clone();
        let memory = Memory::new(100, 0, move || {
            count.fetch_add(1, Ordering::Relaxed);
        });
        let mut first = memory.hold(60).unwrap();
        assert!(memory.hold(41).is_none());
        let second = memory.hold(40).unwrap();
        first.shrink(20);
        let third = memory.hold(40).unwrap();
        first.merge(third);
        assert_eq!((first.bytes(), memory.usage().held_bytes), (60, 100));
        drop((first, second));
        assert_eq!(memory.usage(), Usage { peak_bytes: 100, ..Usage::default() });
        assert!(freed.load(Ordering::Relaxed) >= 3);
    }

    #[test]
    fn kept_sequences_share_their_pages_and_go_oldest_first() {
        let engine = engine();
        let page = engine.model().decoder().cache_bytes(1) as u64;
        // No limit but that of what is kept: two pages.
        let memory = Memory::new(u64::MAX, 2 * page, || {});
        let tokens = |first: u32, count: u32| (0..count).map(|i| 100 + (first + i) % 400).collect::<Vec<_>>();
        let keep = |tokens: &[u32]| {
            let (hold, cache) = read(&engine, &memory, tokens);
            hold.keep(engine.key(), tokens.to_vec(), cache);
        };
        keep(&tokens(0, 40));
        keep(&tokens(100, 30));
        assert_eq!(memory.usage().kept_bytes, 2 * page);
        assert_eq!(memory.kept_tokens(engine.key(), &tokens(0, 60)), 40);
        assert_eq!(memory.kept_tokens(engine.key() + 1, &tokens(0, 60)), 0, "another engine's are of no use");
        // One that goes on from the first replaces it; a part of it changes nothing.
        keep(&tokens(0, 50));
        keep(&tokens(0, 20));
        assert_eq!(memory.state().kept.len(), 2);
        assert_eq!(memory.usage().kept_bytes, 2 * page);
        // A third one has no room beside them: the second was used least recently.
        keep(&tokens(200, 20));
        assert_eq!(memory.kept_tokens(engine.key(), &tokens(100, 30)), 0);
        assert_eq!(memory.kept_tokens(engine.key(), &tokens(0, 60)), 50);
        // Below what is worth it.
        keep(&tokens(300, 15));
        assert_eq!(memory.kept_tokens(engine.key(), &tokens(300, 15)), 0);
        memory.forget_oldest();
        memory.forget_oldest();
        assert_eq!(memory.oldest_kept(), None);
        let usage = memory.usage();
        assert_eq!((usage.held_bytes, usage.kept_bytes), (0, 0));
        assert!(memory.state().pages.is_empty());
    }

    #[test]
    fn copies_that_part_within_a_page_both_count() {
        let engine = engine();
        let page = engine.model().decoder().cache_bytes(1) as u64;
        let memory = Memory::new(u64::MAX, u64::MAX, || {});
        let tokens = |last: u32| (100..130).chain([last]).collect::<Vec<_>>();
        let (hold, cache) = read(&engine, &memory, &tokens(7));
        // A copy that goes nowhere shares all; one that writes has a page of its own.
        let (copy, mut parted) = (cache.clone(), cache.clone());
        hold.keep(engine.key(), tokens(7), cache);
        assert_eq!(memory.usage().kept_bytes, page);
        let hold = memory.hold(page).unwrap();
        hold.keep(engine.key() + 1, tokens(7), copy);
        assert_eq!(memory.usage().kept_bytes, page);
        parted.truncate(30);
        engine.model().decoder().forward(&mut parted, &[8], engine.plan(), &mut Scratch::default());
        memory.hold(page).unwrap().keep(engine.key(), tokens(8), parted);
        assert_eq!(memory.usage().kept_bytes, 2 * page);
    }
}
