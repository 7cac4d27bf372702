//! The node's state as JSON, for queries that are rare.

use std::fmt::Write;

use heliostat_proto::message::{NodeState, Resources, SpillingState, WorkerActivity};

fn text(value: &str) -> String {
    let mut out = String::from('"');
    for character in value.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            control if (control as u32) < 0x20 => drop(write!(out, "\\u{:04x}", control as u32)),
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

fn object(fields: impl Iterator<Item = (String, String)>) -> String {
    let fields: Vec<String> = fields.map(|(name, value)| format!("{}:{value}", text(&name))).collect();
    format!("{{{}}}", fields.join(","))
}

fn amounts(resources: &Resources) -> String {
    object(
        resources
            .iter()
            .map(|(name, thousandths)| (name.to_owned(), format!("{}", thousandths as f64 * Resources::UNIT))),
    )
}

fn spilling(state: &NodeState) -> String {
    let SpillingState { spilled_bytes, spilled_objects, restored_bytes, restored_objects, waiting, .. } =
        state.spilling;
    let numbers = [
        ("objects", state.spilled_objects as f64),
        ("spilledBytes", spilled_bytes as f64),
        ("spilledObjects", spilled_objects as f64),
        ("spillThroughput", state.spilling.spill_throughput.round()),
        ("restoredBytes", restored_bytes as f64),
        ("restoredObjects", restored_objects as f64),
        ("restoreThroughput", state.spilling.restore_throughput.round()),
        ("waiting", waiting as f64),
    ];
    object(numbers.into_iter().map(|(name, number)| (name.to_owned(), format!("{number}"))))
}

/// `{ nodeId, total, available, labels, capacity, used, spilled, file, spilling, objects, pins, drafts, copied, workers }`.
pub(crate) fn to_json(state: &NodeState) -> String {
    let workers: Vec<String> = state
        .workers
        .iter()
        .map(|worker| {
            let activity = match worker.activity {
                WorkerActivity::Starting => "starting",
                WorkerActivity::Idle => "idle",
                WorkerActivity::Busy => "busy",
            };
            format!("{{\"workerId\":\"{}\",\"pid\":{},\"state\":\"{activity}\"}}", worker.worker, worker.pid)
        })
        .collect();
    let numbers = [
        ("capacity", state.capacity),
        ("used", state.used),
        ("spilled", state.spilled),
        ("file", state.in_file),
        ("objects", state.objects),
        ("pins", state.pins),
        ("drafts", state.drafts),
        ("copied", state.copied),
    ];
    let fields = [
        ("nodeId".to_owned(), text(&state.node.to_string())),
        ("total".to_owned(), amounts(&state.total)),
        ("available".to_owned(), amounts(&state.available)),
        ("labels".to_owned(), object(state.labels.iter().map(|(name, value)| (name.clone(), text(value))))),
        ("workers".to_owned(), format!("[{}]", workers.join(","))),
        ("spilling".to_owned(), spilling(state)),
    ];
    object(fields.into_iter().chain(numbers.map(|(name, number)| (name.to_owned(), number.to_string()))))
}
