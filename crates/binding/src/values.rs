//! Serialised values between JavaScript and the client: parts in, header and buffers out.

use heliostat_client::{Client, NamedError, Parts, PutError};
use heliostat_proto::blob::{BlobView, VIEW_MIN};
use heliostat_proto::{Blob, Fact, Failure, Locator, ObjectId, digest};
use heliostat_runtime::{Handle, Place};
use heliostat_store::{Pin, PinError};

use crate::drafts;
use crate::raw::{Outcome, Scope, Thrown, Value, raw_functions};
use crate::runtime::client;
use crate::views::{self, Label};

/// What a put that failed throws.
pub(crate) fn put_error(error: &PutError) -> Thrown {
    use heliostat_store::{CreateError, LeaseError, PutError as Store};
    let code = match error {
        PutError::NodeGone
        | PutError::Store(
            Store::Create(
                CreateError::Fenced | CreateError::Lease(LeaseError::Disconnected { .. } | LeaseError::NoSeat { .. }),
            )
            | Store::Seal(_),
        ) => "NODE_DIED",
        PutError::Expose(_) => "INTERNAL",
        // Told apart from a refusal after which it makes sense to wait.
        PutError::Store(Store::Create(CreateError::Lease(
            LeaseError::Exhausted { disk, .. } | LeaseError::NoFile { disk, .. },
        ))) => {
            if *disk {
                "OUT_OF_DISK"
            } else {
                "STORE_EXHAUSTED"
            }
        }
        PutError::Store(Store::Create(CreateError::TooLarge { .. })) => "STORE_EXHAUSTED",
        PutError::Store(Store::Create(CreateError::Lease(LeaseError::Full { .. } | LeaseError::NoMemory { .. }))) => {
            "OBJECT_STORE_FULL"
        }
        _ => "STORE_LIMIT",
    };
    Thrown::new(code, error.to_string())
}

fn named_error(error: &NamedError) -> Thrown {
    match error {
        NamedError::Refused(failure) => Thrown::new(&failure.code, failure.message.clone()),
        NamedError::NodeGone => Thrown::new("NODE_DIED", error.to_string()),
        _ => Thrown::new("TRANSPORT", error.to_string()),
    }
}

/// The parts of a value that JavaScript passed, and the draft that is its one buffer, if there is one.
pub(crate) struct Given<'a> {
    pub(crate) parts: Parts<'a>,
    draft: Option<u32>,
}

impl Given<'_> {
    /// Lays the value out, as an object of the process with the seat `owner`.
    pub(crate) fn blob(&self, client: &Client, id: ObjectId, owner: u32) -> Result<Blob, Thrown> {
        self.lay_out(client, id, owner, Client::blob)
    }

    /// The same, in the store however small it is.
    pub(crate) fn stored(&self, client: &Client, id: ObjectId, owner: u32) -> Result<Blob, Thrown> {
        self.lay_out(client, id, owner, Client::stored)
    }

    /// What its content comes to.
    pub(crate) fn digest(&self) -> Result<u64, Thrown> {
        let Parts { header, buffers, refs } = self.parts;
        match self.draft {
            Some(draft) => drafts::with_data(draft, |bytes| digest::of_value(header, refs.len(), [bytes])),
            None => Ok(digest::of_value(header, refs.len(), buffers.iter().copied())),
        }
    }

    /// The value is not wanted.
    pub(crate) fn discard(&self) {
        if let Some(draft) = self.draft {
            drafts::discard(draft);
        }
    }

    fn lay_out(
        &self,
        client: &Client,
        id: ObjectId,
        owner: u32,
        copy: fn(&Client, ObjectId, u32, Parts<'_>) -> Result<Blob, PutError>,
    ) -> Result<Blob, Thrown> {
        match self.draft {
            Some(draft) => drafts::seal(client, draft, id, owner, self.parts),
            None => copy(client, id, owner, self.parts).map_err(|error| put_error(&error)),
        }
    }
}

/// Calls `body` with the parts that JavaScript passed: header, its length, out-of-band buffers or the number of a
/// draft, references.
pub(crate) fn with_parts<R>(
    scope: Scope,
    [header, header_len, buffers, refs]: [Value; 4],
    body: impl FnOnce(Given<'_>) -> Result<R, Thrown>,
) -> Result<R, Thrown> {
    let refs: Vec<Handle> = scope.handles(refs)?;
    let length = scope.get_u32(header_len)? as usize;
    let draft = scope.get_u32(buffers).ok();
    let buffers = if draft.is_some() { Vec::new() } else { scope.elements(buffers)? };
    // SAFETY: nothing below runs JavaScript, which alone could detach or write these before the call returns.
    let (header, buffers) = unsafe {
        let header = scope.view(header)?;
        let buffers = buffers.into_iter().map(|buffer| scope.view(buffer)).collect::<Result<Vec<_>, _>>()?;
        (header, buffers)
    };
    let header = header.get(..length).ok_or_else(|| Thrown::argument("the header's length"))?;
    body(Given { parts: Parts { header, buffers: &buffers, refs: &refs }, draft })
}

/// A value as JavaScript decodes it: `{ header, buffers, refs }`. Each reference is a new handle of the program.
/// What is spilled was brought back before, as a rule; else the thread waits for it here.
pub(crate) fn read_blob(scope: Scope, client: &Client, blob: &Blob, label: Label) -> Outcome {
    let pin = |locator: &Locator| {
        let pins = client.pin_all(&[*locator]).map_err(|failure| Thrown::new(&failure.code, failure.message))?;
        pins.into_iter().next().ok_or_else(|| Thrown::argument("a pinned object"))
    };
    read_pinned(scope, client, blob, label, pin)
}

fn read_pinned(
    scope: Scope,
    client: &Client,
    blob: &Blob,
    label: Label,
    pin: impl FnOnce(&Locator) -> Result<Pin, Thrown>,
) -> Outcome {
    match blob {
        Blob::Inline(bytes) => read_parts(scope, client, bytes, |scope, offset, length, _| {
            views::immutable(scope, scope.array_buffer(&bytes[offset..offset + length]))
        }),
        Blob::Stored(locator) => {
            let pin = std::sync::Arc::new(pin(locator)?);
            let bytes = pin.bytes();
            read_parts(scope, client, bytes, |scope, offset, length, index| {
                if (length as u64) < VIEW_MIN {
                    views::immutable(scope, scope.array_buffer(&bytes[offset..offset + length]))
                } else {
                    views::external(scope, &pin, offset, length, index, label)
                }
            })
        }
    }
}

fn read_parts(
    scope: Scope,
    client: &Client,
    bytes: &[u8],
    buffer: impl Fn(Scope, usize, usize, usize) -> Value,
) -> Outcome {
    let view = BlobView::parse(bytes).map_err(|error| Thrown::new("OBJECT_CORRUPTED", error.to_string()))?;
    let buffers: Vec<Value> = view
        .buffers()
        .enumerate()
        .map(|(index, (offset, length))| buffer(scope, offset as usize, length as usize, index))
        .collect();
    let entries: Vec<_> = view.refs().collect();
    let refs: Vec<Handle> = if entries.is_empty() {
        Vec::new()
    } else {
        client.with_core(|core| entries.iter().map(|entry| core.adopt(entry)).collect())
    };
    let object = scope.object();
    scope.set(object, c"header", scope.bytes(view.header()));
    scope.set(object, c"buffers", scope.array(buffers.into_iter()));
    scope.set(object, c"refs", scope.numbers(&refs));
    Ok(object)
}

/// A failure as JavaScript builds its error from: `{ code, message, hint, facts, thrown, inherited }`.
pub(crate) fn read_failure(scope: Scope, client: &Client, failure: &Failure) -> Outcome {
    let object = scope.object();
    scope.set(object, c"code", scope.string(&failure.code));
    scope.set(object, c"message", scope.string(&failure.message));
    scope.set(object, c"inherited", scope.bool(failure.inherited));
    if let Some(hint) = &failure.hint {
        scope.set(object, c"hint", scope.string(hint));
    }
    let facts = scope.object();
    for (name, fact) in &failure.facts {
        let Ok(name) = std::ffi::CString::new(name.as_str()) else { continue };
        let value = match fact {
            Fact::Absent => scope.null(),
            Fact::Number(number) => scope.number(*number as f64),
            Fact::Text(text) => scope.string(text),
        };
        scope.set(facts, &name, value);
    }
    scope.set(object, c"facts", facts);
    if let Some(thrown) = &failure.thrown {
        let thrown = read_blob(scope, client, &Blob::Inline(thrown.clone()), Label::Arguments)?;
        scope.set(object, c"thrown", thrown);
    }
    Ok(object)
}

raw_functions! {
    /// Stores a serialised value; returns the program's handle of it.
    fn put = c"put" (header, header_len, buffers, refs) |scope| {
        let client = client()?;
        with_parts(scope, [header, header_len, buffers, refs], |given| {
            let id = client.with_core(heliostat_runtime::Core::next_put_id);
            let blob = given.blob(&client, id, client.seat())?;
            let contains = given.parts.refs.to_vec();
            Ok(scope.u32(client.with_core(|core| core.put_as(id, blob, contains))))
        })
    }

    /// Gives a serialised value to the cluster under a name, for so many milliseconds (negative: for good), and waits for
    /// the daemon's word; returns the program's handle of it.
    fn put_named = c"putNamed" (name, ttl, header, header_len, buffers, refs) |scope| {
        let (client, name, ttl) = (client()?, scope.get_string(name)?, scope.get_f64(ttl)?);
        let ttl = (ttl >= 0.0).then_some(ttl as u64);
        with_parts(scope, [header, header_len, buffers, refs], |given| {
            let id = client.with_core(heliostat_runtime::Core::next_put_id);
            let blob = given.blob(&client, id, client.seat())?;
            let put = client.put_named(id, blob, given.parts.refs, name, ttl);
            Ok(scope.u32(put.map_err(|error| named_error(&error))?))
        })
    }

    /// A handle of the object that has a name.
    fn find_named = c"findNamed" (name) |scope| {
        let found = client()?.find_named(scope.get_string(name)?);
        Ok(scope.u32(found.map_err(|error| named_error(&error))?))
    }

    /// Sets where names are looked up.
    fn set_namespace = c"setNamespace" (name) |scope| {
        client()?.set_namespace(scope.get_string(name)?);
        Ok(scope.undefined())
    }

    /// The value or failure of a reference; `undefined` while there is none. For a value that is spilled the thread waits,
    /// or SPILLED is thrown.
    fn read = c"read" (handle, may_wait) |scope| {
        let client = client()?;
        let (handle, may_wait) = (scope.get_u32(handle)?, scope.get_bool(may_wait)?);
        let (id, value) = client.with_core(|core| {
            let value = core.value(handle);
            if matches!(value, Some(heliostat_proto::Value::Failed(_))) {
                core.observe(handle);
            }
            (core.id(handle), value)
        });
        match (id, value) {
            (Some(id), Some(heliostat_proto::Value::Ready(blob))) if may_wait => {
                read_blob(scope, &client, &blob, Label::Object(id))
            }
            (Some(id), Some(heliostat_proto::Value::Ready(blob))) => {
                read_pinned(scope, &client, &blob, Label::Object(id), |locator| client.pin(locator).map_err(|error| {
                    let code = if matches!(error, PinError::Spilled { .. }) { "SPILLED" } else { "OBJECT_FREED" };
                    Thrown::new(code, format!("the object's data is gone: {error}"))
                }))
            }
            (_, Some(heliostat_proto::Value::Failed(failure))) => read_failure(scope, &client, &failure),
            _ => Ok(scope.undefined()),
        }
    }

    /// A handle is gone. Without a membership there is nothing left to release.
    fn release = c"release" (handle) |scope| {
        let handle = scope.get_u32(handle)?;
        if let Some(client) = crate::runtime::entered() {
            client.with_core(|core| core.release(handle));
        }
        Ok(scope.undefined())
    }

    /// Deletes the data of an object, here or at its owner.
    fn free = c"free" (handle) |scope| {
        let (client, handle) = (client()?, scope.get_u32(handle)?);
        client.with_core(|core| core.free(handle));
        Ok(scope.undefined())
    }

    /// The program learned what became of these references.
    fn observe = c"observe" (handles) |scope| {
        let (client, handles) = (client()?, scope.handles(handles)?);
        client.with_core(|core| handles.into_iter().for_each(|handle| core.observe(handle)));
        Ok(scope.undefined())
    }

    /// Failed tasks of which the last reference went unread, or with `all` also those with references that did not so
    /// far: `[name, failure, ...]`; `undefined` when there are none.
    fn take_unread = c"takeUnread" (all) |scope| {
        let all = scope.get_bool(all)?;
        let Some(client) = crate::runtime::entered() else { return Ok(scope.undefined()) };
        let taken = client.with_core(|core| if all { core.take_all_unread() } else { core.take_unread() });
        if taken.is_empty() {
            return Ok(scope.undefined());
        }
        let mut values = Vec::with_capacity(2 * taken.len());
        for (name, failure) in taken {
            values.extend([scope.string(&name), read_failure(scope, &client, &failure)?]);
        }
        Ok(scope.array(values.into_iter()))
    }

    /// The 56 hexadecimal digits of a reference's id.
    fn ref_id = c"refId" (handle) |scope| {
        let (client, handle) = (client()?, scope.get_u32(handle)?);
        let id = client.with_core(|core| core.id(handle)).ok_or_else(|| Thrown::argument("a live handle"))?;
        Ok(scope.string(&id.to_string()))
    }

    /// Where a reference's value is: -1 pending, 0 inline, 1 in the store, 2 failed.
    fn ref_state = c"refState" (handle) |scope| {
        let (client, handle) = (client()?, scope.get_u32(handle)?);
        Ok(scope.number(place(&client, handle).0))
    }

    /// Where the spilled value of a reference is kept; `undefined` when it is in memory, or inline.
    fn ref_uri = c"refUri" (handle) |scope| {
        let (client, handle) = (client()?, scope.get_u32(handle)?);
        let uri = stored(&client, handle).and_then(|locator| client.locate(&locator));
        Ok(uri.map_or_else(|| scope.undefined(), |uri| scope.string(&uri)))
    }

    /// Bytes of values that this process keeps inline.
    fn inline_bytes = c"inlineBytes" () |scope| {
        Ok(scope.number(client()?.inline_bytes() as f64))
    }

    /// This process's own objects in the store, the largest first, at most so many: `[handle, bytes, ...]`.
    fn stored_handles = c"storedHandles" (most) |scope| {
        let (client, most) = (client()?, scope.get_u32(most)?);
        let stored = client.with_core(|core| core.stored(most as usize));
        let numbers = stored.into_iter().flat_map(|(handle, bytes)| [scope.u32(handle), scope.number(bytes as f64)]);
        Ok(scope.array(numbers.collect::<Vec<_>>().into_iter()))
    }

    /// Answers the node's question where objects were made.
    fn tell_sites = c"tellSites" (request, sites) |scope| {
        let (client, request) = (client()?, scope.get_u32(request)?);
        let sites: Result<Vec<String>, Thrown> =
            scope.elements(sites)?.into_iter().map(|site| scope.get_string(site)).collect();
        client.tell_sites(request.into(), sites?);
        Ok(scope.undefined())
    }

    /// The same, or 3 when it is spilled, with the length of the serialised value in bytes.
    fn ref_place = c"refPlace" (handle) |scope| {
        let (client, handle) = (client()?, scope.get_u32(handle)?);
        let (mut state, length) = place(&client, handle);
        if stored(&client, handle).is_some_and(|locator| client.is_spilled(&locator)) {
            state = 3.0;
        }
        Ok(scope.array([scope.number(state), scope.number(length)].into_iter()))
    }
}

pub(crate) fn stored(client: &Client, handle: Handle) -> Option<heliostat_proto::Locator> {
    match client.with_core(|core| core.place(handle)) {
        Place::Stored(locator) => Some(locator),
        _ => None,
    }
}

fn place(client: &Client, handle: Handle) -> (f64, f64) {
    match client.with_core(|core| core.place(handle)) {
        Place::Pending => (-1.0, 0.0),
        Place::Inline(length) => (0.0, length as f64),
        Place::Stored(locator) => (1.0, locator.length as f64),
        Place::Failed => (2.0, 0.0),
    }
}
