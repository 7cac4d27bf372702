//! The engine's clock: batches that are due, heartbeats, deletions to try again, compactions to start.

use std::sync::{Arc, PoisonError};
use std::time::Instant;

use super::lane::Class;
use super::{Retry, Shared};
use crate::storage::HEARTBEAT;

pub(super) fn start(shared: Arc<Shared>) -> std::io::Result<()> {
    std::thread::Builder::new().name("spill-keeper".into()).spawn(move || {
        keep(&shared);
        shared.keeper_ended();
    })?;
    Ok(())
}

fn keep(shared: &Arc<Shared>) {
    let mut heartbeat = Instant::now() + HEARTBEAT;
    loop {
        let mut state = shared.lock();
        let now = Instant::now();
        let notices = std::mem::take(&mut state.notices);
        let due = state.batch.since.is_some_and(|since| now.duration_since(since) >= shared.flush_after);
        let batch = if due { state.take_batch() } else { Vec::new() };
        let (ready, waiting): (Vec<_>, Vec<_>) =
            std::mem::take(&mut state.undeleted).into_iter().partition(|retry| retry.at <= now);
        state.undeleted = waiting;
        let pausing = state.compact_after.is_some_and(|after| now < after);
        let compact = state.map.is_sparse() && !state.compacting && !pausing && !state.closed;
        let quiet = notices.is_empty() && batch.is_empty() && ready.is_empty() && !compact;
        if quiet && state.closed && state.under_way.is_empty() {
            state.keeper_ended = true;
            return;
        }
        if quiet && now < heartbeat {
            let flush = state.batch.since.and_then(|since| since.checked_add(shared.flush_after));
            let retry = state.undeleted.iter().map(|retry| retry.at).min();
            let resume = state.compact_after.filter(|_| state.map.is_sparse());
            let until = [flush, retry, resume].into_iter().flatten().fold(heartbeat, Instant::min);
            drop(shared.wake.wait_timeout(state, until - now).unwrap_or_else(PoisonError::into_inner));
            continue;
        }
        drop(state);
        for notice in notices {
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(notice));
        }
        if !batch.is_empty() {
            shared.dispatch(batch);
        }
        for Retry { doomed, pause, .. } in ready {
            shared.push_delete(doomed, pause);
        }
        if compact {
            shared.compact();
        }
        if now >= heartbeat {
            heartbeat = now + HEARTBEAT;
            for target in 0..shared.lanes.len() {
                shared.push(target, Class::Small, move |shared| {
                    // One that fails is no news: the next comes in a minute, and an hour of silence is allowed.
                    let _ = shared.storage(target).heartbeat();
                });
            }
        }
    }
}
