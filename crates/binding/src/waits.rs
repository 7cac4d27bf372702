//! Waiting: in the background with an event, or blocking the thread.

use std::cell::RefCell;
use std::time::Duration;

use heliostat_client::{Blocked, Client};
use heliostat_runtime::Handle;

use crate::port;
use crate::raw::{Scope, Thrown, Value, raw_functions};
use crate::runtime::client;

/// The last number given to a list, and for each handle the number of the list that it was in last.
type Marks = (u32, Vec<u32>);

thread_local! {
    static MARKS: RefCell<Marks> = const { RefCell::new((0, Vec::new())) };
}

/// Whether a handle is in the list twice. Handles are small numbers, so that a mark for each costs less than sorting.
fn has_twins(handles: &[Handle]) -> bool {
    MARKS.with_borrow_mut(|(number, marks)| {
        let most = handles.iter().max().map_or(0, |most| *most as usize + 1);
        if marks.len() < most {
            marks.resize(most, 0);
        }
        *number = number.wrapping_add(1);
        if *number == 0 {
            marks.fill(0);
            *number = 1;
        }
        handles.iter().any(|handle| std::mem::replace(&mut marks[*handle as usize], *number) == *number)
    })
}

fn ready_places(scope: Scope, client: &Client, handles: &[Handle], count: usize) -> Value {
    let ready = client.with_core(|core| {
        let ready = handles.iter().enumerate().filter(|(_, handle)| core.is_ready(**handle));
        ready.map(|(place, _)| place as u32).take(count).collect::<Vec<u32>>()
    });
    scope.numbers(&ready)
}

raw_functions! {
    /// Waits until `needed` of the references have a value, or one failed when `failFast`; returns the wait's number,
    /// which an event tells is over, or -1 when there is nothing to wait for.
    fn wait = c"wait" (handles, needed, fail_fast) |scope| {
        let client = client()?;
        let (handles, needed) = (scope.handles(handles)?, scope.get_u32(needed)? as usize);
        let fail_fast = scope.get_bool(fail_fast)?;
        let port = port::of(scope.env).ok_or_else(|| Thrown::argument("a thread with an open port"))?;
        Ok(scope.number(client.wait(port, &handles, needed, fail_fast).map_or(-1.0, f64::from)))
    }

    /// Waits until `count` of the references have a value or failed: the number of the wait, or the places in the list of
    /// the first so many when that is so already. `null` when one is in the list twice.
    fn wait_some = c"waitSome" (handles, count) |scope| {
        let client = client()?;
        let (handles, count) = (scope.handles(handles)?, scope.get_u32(count)? as usize);
        if has_twins(&handles) {
            return Ok(scope.null());
        }
        let port = port::of(scope.env).ok_or_else(|| Thrown::argument("a thread with an open port"))?;
        match client.wait(port, &handles, count, false) {
            Some(wait) => Ok(scope.u32(wait)),
            None => Ok(ready_places(scope, &client, &handles, count)),
        }
    }

    /// The places in the list of the first `count` references that have a value or failed.
    fn ready_places_of = c"readyPlaces" (handles, count) |scope| {
        let (client, handles, count) = (client()?, scope.handles(handles)?, scope.get_u32(count)? as usize);
        Ok(ready_places(scope, &client, &handles, count))
    }

    /// Ends a wait, over or not; also one of `restore`.
    fn end_wait = c"endWait" (wait) |scope| {
        let number = scope.get_f64(wait)?;
        if let Some(client) = crate::runtime::entered() {
            if number >= port::RESTORES {
                client.end_restore((number - port::RESTORES) as u32);
            } else {
                client.end_wait(number as u32);
            }
        }
        Ok(scope.undefined())
    }

    /// Brings back what is spilled of the values of these references, and keeps all of them until `endWait`. Returns a
    /// number like that of a wait, or -1 when nothing is spilled.
    fn restore = c"restore" (handles) |scope| {
        let (client, handles) = (client()?, scope.handles(handles)?);
        let port = port::of(scope.env).ok_or_else(|| Thrown::argument("a thread with an open port"))?;
        Ok(scope.number(client.restore(port, &handles).map_or(-1.0, |id| port::RESTORES + f64::from(id))))
    }

    /// How long calls of this thread that need room in the store wait for it: milliseconds, the place in line that a
    /// number names (0 for none), whether nobody asks again after this, and whether it is only to wait while objects are spilled.
    fn set_patience = c"setPatience" (millis, ticket, last, spilling) |scope| {
        let millis = scope.get_f64(millis)?.clamp(0.0, f64::from(u32::MAX)) as u32;
        let (ticket, last, spilling) = (scope.get_f64(ticket)? as u64, scope.get_bool(last)?, scope.get_bool(spilling)?);
        heliostat_client::set_patience(heliostat_proto::message::Patience { millis, ticket, last, spilling });
        Ok(scope.undefined())
    }

    /// Blocks the thread until all have a value or one failed: 0. 1: the milliseconds ran out first (negative ones are no
    /// bound), 2: the task that waits was aborted.
    fn block = c"block" (handles, timeout) |scope| {
        let (client, handles, timeout) = (client()?, scope.handles(handles)?, scope.get_f64(timeout)?);
        let timeout = (timeout >= 0.0).then(|| Duration::try_from_secs_f64(timeout / 1000.0).unwrap_or(Duration::MAX));
        Ok(scope.u32(match client.block(port::of(scope.env), &handles, timeout) {
            Blocked::Over => 0,
            Blocked::Late => 1,
            Blocked::Aborted => 2,
        }))
    }
}
