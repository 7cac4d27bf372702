//! Streams: taking items from those that this program asked for, and making those of the tasks that run here.

use heliostat_client::Client;
use heliostat_proto::Blob;
use heliostat_proto::blob::plain;
use heliostat_proto::digest::of_value;
use heliostat_runtime::{ExecutionId, ItemPlace, Next, Room};

use crate::port;
use crate::raw::{Thrown, raw_functions};
use crate::runtime::client;
use crate::small::with_scratch;
use crate::values::with_parts;

/// What `nextItem` returns when there are no more, and when it has not arrived.
const ENDED: f64 = -1.0;
const PENDING: f64 = -2.0;

/// How JavaScript is told of room.
fn number(room: Room) -> u32 {
    match room {
        Room::Free => 0,
        Room::Full => 1,
        Room::Ended => 2,
    }
}

fn place(client: &Client, execution: ExecutionId) -> Result<ItemPlace, Thrown> {
    let place = client.with_core(|core| core.next_place(execution));
    place.ok_or_else(|| Thrown::new("INTERNAL", "a stream has at most 2147483647 items"))
}

raw_functions! {
    /// The next item of a stream: its handle; -1 when there are no more, -2 when it has not arrived.
    fn next_item = c"nextItem" (stream) |scope| {
        Ok(scope.number(match client()?.take_item(scope.get_u32(stream)?) {
            Next::Item(handle) => f64::from(handle),
            Next::Ended => ENDED,
            Next::Pending => PENDING,
        }))
    }

    /// Waits for the next item of a stream, or its end: the wait's number, or -1 when there is nothing to wait for.
    fn wait_item = c"waitItem" (stream) |scope| {
        let (client, stream) = (client()?, scope.get_u32(stream)?);
        let port = port::of(scope.env).ok_or_else(|| Thrown::argument("a thread with an open port"))?;
        Ok(scope.number(client.wait_item(port, stream).map_or(-1.0, f64::from)))
    }

    /// Takes no more items of a stream, and cancels the task that makes them.
    fn drop_stream = c"dropStream" (stream) |scope| {
        let stream = scope.get_u32(stream)?;
        if let Some(client) = crate::runtime::current() {
            client.drop_stream(stream);
        }
        Ok(scope.undefined())
    }

    /// Whether a running task may make its next item: 0 it may, 1 not yet, 2 nobody wants it.
    fn room = c"room" (execution) |scope| {
        let room = client()?.room(scope.get_u32(execution)?);
        Ok(scope.u32(number(room)))
    }

    /// Waits until it may, or nobody wants it: the wait's number, or -1 when there is nothing to wait for.
    fn wait_room = c"waitRoom" (execution) |scope| {
        let (client, execution) = (client()?, scope.get_u32(execution)?);
        let port = port::of(scope.env).ok_or_else(|| Thrown::argument("a thread with an open port"))?;
        Ok(scope.number(client.wait_room(port, execution).map_or(-1.0, f64::from)))
    }

    /// Blocks the thread until it may, or nobody wants it; then as `room`.
    fn block_room = c"blockRoom" (execution) |scope| {
        let room = client()?.block_room(port::of(scope.env), scope.get_u32(execution)?);
        Ok(scope.u32(number(room)))
    }

    /// Hands the next item of a running task over: four parts. Returns whether it may make another, as `room`.
    fn push_item = c"pushItem" (execution, header, header_len, buffers, refs) |scope| {
        let (client, execution) = (client()?, scope.get_u32(execution)?);
        with_parts(scope, [header, header_len, buffers, refs], |given| {
            let ItemPlace { id, seat, known, digest } = place(&client, execution)?;
            let digest = if digest { given.digest()? } else { 0 };
            let blob = if known {
                given.discard();
                None
            } else {
                Some(given.blob(&client, id, seat)?)
            };
            let contains = given.parts.refs;
            Ok(scope.u32(number(client.with_core(|core| core.push_item(execution, blob, contains, digest)))))
        })
    }

    /// The same for an item of which the scratch memory holds the header, and which is nothing else.
    fn push_small = c"pushSmall" (execution, length) |scope| {
        let (client, execution, length) = (client()?, scope.get_u32(execution)?, scope.get_u32(length)? as usize);
        let ItemPlace { known, digest, .. } = place(&client, execution)?;
        let (blob, digest) = with_scratch(length, |header| {
            let digest = if digest { of_value(header, 0, []) } else { 0 };
            ((!known).then(|| Blob::Inline(plain(header))), digest)
        });
        Ok(scope.u32(number(client.with_core(|core| core.push_item(execution, blob, &[], digest)))))
    }
}
