//! Starting, joining and leaving a node.

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use heliostat_client::{Client, ClientOptions, ConnectError};
use heliostat_node::{Node, NodeConfig, NodeHandle, SpillConfig, WorkerCommand};
use heliostat_proto::message::{Resources, Role};
use napi::bindgen_prelude::AsyncTask;
use napi::{Env, Error, Status, Task};
use napi_derive::napi;

use crate::{port, runtime};

/// How long workers have to end before they are killed.
const GRACE: Duration = Duration::from_secs(2);

/// Threads of a process start one node between them.
static STARTING: Mutex<()> = Mutex::new(());

/// What an embedded node is started with.
#[napi(object, object_to_js = false)]
#[derive(Debug)]
pub struct StartOptions {
    /// Where the sessions' directory goes.
    pub temp_dir: String,
    /// Amounts by name, `CPU` included.
    pub resources: HashMap<String, f64>,
    /// Labels of the node.
    pub labels: HashMap<String, String>,
    /// Bytes of the store.
    pub object_store_memory: f64,
    /// Bytes up to which values stay out of the store.
    pub inline_limit: f64,
    /// The worker's executable.
    pub program: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Further ones, behind those of a runtime environment.
    pub entry: Vec<String>,
    /// Whether workers are started ahead of need only when `inheritEnv` has said for what.
    pub awaits_env: bool,
    /// Variables of its environment, besides the inherited ones.
    pub env: HashMap<String, String>,
    /// How objects are spilled; `undefined` for not at all.
    pub spilling: Option<SpillSettings>,
    /// Milliseconds that a put waits for room.
    pub put_timeout: f64,
    /// Whether workers' lines are written by this process.
    pub log_to_driver: bool,
}

/// How objects are spilled; what is left out has its default.
#[napi(object, object_to_js = false)]
#[derive(Debug)]
pub struct SpillSettings {
    /// Directories or URIs.
    pub uris: Option<Vec<String>>,
    /// Bytes up to which objects are fused.
    pub min_spilling_size: Option<f64>,
    /// Bytes of a part of a remote upload.
    pub buffer_size: Option<f64>,
    /// Threads for each target.
    pub max_io_workers: Option<u32>,
    /// Part of the store.
    pub threshold: Option<f64>,
    /// Settings of the storage clients.
    pub storage: Option<HashMap<String, String>>,
}

impl From<SpillSettings> for SpillConfig {
    fn from(settings: SpillSettings) -> Self {
        let mut config = Self::default();
        config.uris = settings.uris.unwrap_or_default();
        config.min_spilling_size = settings.min_spilling_size.map_or(config.min_spilling_size, |bytes| bytes as u64);
        config.buffer_size = settings.buffer_size.map_or(config.buffer_size, |bytes| bytes as u64);
        config.max_io_workers = settings.max_io_workers.map_or(config.max_io_workers, |count| count as usize);
        config.threshold = settings.threshold.unwrap_or(config.threshold);
        config.storage = settings.storage.unwrap_or_default().into_iter().collect();
        config
    }
}

/// The membership of this process.
#[napi(object, object_from_js = false)]
#[derive(Debug)]
pub struct Session {
    /// What other processes of this machine join by.
    pub address: String,
    /// 32 hexadecimal digits.
    pub node_id: String,
    /// 32 hexadecimal digits.
    pub job_id: String,
    /// 32 hexadecimal digits.
    pub worker_id: String,
    /// Bytes up to which values stay out of the store.
    pub inline_limit: f64,
    /// Bytes of the store.
    pub capacity: f64,
    /// Milliseconds that a put waits for room.
    pub put_timeout: f64,
}

pub(crate) fn error(code: &str, message: impl std::fmt::Display) -> Error {
    // The typed API splits the code off again: the macros know no error code of their own.
    Error::new(Status::GenericFailure, format!("{code}: {message}"))
}

fn connect_error(failed: &ConnectError) -> Error {
    match failed {
        ConnectError::Refused(failure) => error(&failure.code, &failure.message),
        other => error("TRANSPORT", other),
    }
}

fn session(client: &Client, address: String) -> Session {
    let welcome = client.welcome();
    Session {
        address,
        node_id: welcome.node.to_string(),
        job_id: welcome.job.to_string(),
        worker_id: welcome.worker.to_string(),
        inline_limit: welcome.inline_limit as f64,
        capacity: client.store().params().capacity as f64,
        put_timeout: welcome.put_timeout as f64,
    }
}

fn join(
    socket: OwnedFd,
    role: Role,
    address: String,
    on_node_gone: Box<dyn Fn() + Send + Sync>,
) -> napi::Result<Session> {
    let print_output = matches!(role, Role::Driver);
    // As the program may have set it for itself; read on the thread that may change it.
    let fold_output = std::env::var_os("HELIOSTAT_DEDUP_LOGS").is_none_or(|value| value != "0");
    let client = Client::connect(socket, ClientOptions { role, on_node_gone, print_output, fold_output })
        .map_err(|failed| connect_error(&failed))?;
    crate::views::watch(&client).map_err(|failed| error("INTERNAL", failed))?;
    let session = session(&client, address.clone());
    runtime::set_address(address);
    runtime::set_client(Some(Arc::new(client)));
    Ok(session)
}

/// Starts a node in this process and joins it as its driver; another thread's, which was faster, is shared.
#[napi]
pub fn start_node(options: StartOptions) -> napi::Result<Session> {
    let _starting = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(running) = current_session() {
        return Ok(running);
    }
    let mut command = WorkerCommand::new(options.program, options.args);
    command.entry = options.entry.into_iter().map(OsString::from).collect();
    command.env = options.env.into_iter().map(|(name, value)| (OsString::from(name), OsString::from(value))).collect();
    let mut config = NodeConfig::new(
        PathBuf::from(options.temp_dir),
        Resources::new(options.resources),
        options.object_store_memory as u64,
        command,
    );
    config.labels = options.labels.into_iter().collect();
    config.inline_limit = options.inline_limit as u64;
    config.awaits_env = options.awaits_env;
    config.log_to_driver = options.log_to_driver;
    config.spilling = options.spilling.map(SpillConfig::from);
    config.put_timeout = Duration::try_from_secs_f64(options.put_timeout / 1000.0).unwrap_or(Duration::MAX);
    let node = Node::start(config).map_err(|failed| error("NODE_START", failed))?;
    let address = node.address();
    let socket = node.connect().map_err(|failed| error("NODE_START", failed))?;
    *runtime::node() = Some(node);
    join(socket, Role::Driver, address, Box::new(|| {})).inspect_err(|_| exit_node())
}

/// Joins the node behind a Unix socket: as a driver, or with the token of a worker, whose process ends with its node.
#[napi]
#[allow(clippy::needless_pass_by_value)] // the macros pass owned values
pub fn join_node(path: String, worker_token: Option<String>) -> napi::Result<Session> {
    let stream = UnixStream::connect(&path).map_err(|failed| error("TRANSPORT", format!("{path}: {failed}")))?;
    let address = format!("unix:{path}");
    let Some(token) = worker_token else { return join(stream.into(), Role::Driver, address, Box::new(|| {})) };
    let token = u128::from_str_radix(&token, 16).map_err(|_| error("INTERNAL", "a worker's token is a number"))?;
    // SAFETY: ends the process at once, without running JavaScript or destructors: its node is gone.
    join(stream.into(), Role::Worker { token }, address, Box::new(|| unsafe { libc::_exit(0) }))
}

/// The membership of this process, if a thread of it has one.
#[napi]
pub fn current_session() -> Option<Session> {
    let client = runtime::current()?;
    Some(session(&client, runtime::address()))
}

/// Leaving, on a thread of the pool: it waits for workers and for their last lines. It holds what ends, so that another
/// thread may start the next membership meanwhile.
#[derive(Debug)]
pub struct Leaving {
    client: Option<Arc<Client>>,
    node: Option<NodeHandle>,
}

impl Task for Leaving {
    type Output = ();
    type JsValue = ();

    fn compute(&mut self) -> napi::Result<()> {
        if let Some(client) = self.client.take() {
            client.leave();
        }
        if let Some(node) = self.node.take() {
            node.stop(GRACE);
        }
        Ok(())
    }

    fn resolve(&mut self, _env: Env, (): ()) -> napi::Result<()> {
        Ok(())
    }
}

/// Leaves the node, and ends it when this process started it. The thread's port must be closed before. Unless it is
/// `forced`, the membership goes on as long as other threads of the process have ports.
#[napi(ts_return_type = "Promise<void>")]
pub fn leave_node(forced: bool) -> AsyncTask<Leaving> {
    let left = port::when_unused(forced, || (runtime::set_client(None), runtime::node().take()));
    let (client, node) = left.unwrap_or_default();
    AsyncTask::new(Leaving { client, node })
}

/// Ends the membership of a process that exits, without waiting for others: kills the workers of an embedded node and
/// removes its files.
#[napi]
pub fn exit_node() {
    if let Some(client) = runtime::set_client(None) {
        client.abandon();
    }
    if let Some(node) = runtime::node().take() {
        node.stop(Duration::ZERO);
    }
}

/// The state of the node, as JSON.
#[napi]
pub fn node_state() -> napi::Result<String> {
    let client = runtime::client().map_err(|thrown| error(&thrown.code, thrown.message))?;
    let state = client.node_state().ok_or_else(|| error("NODE_DIED", "the node has ended"))?;
    Ok(crate::state::to_json(&state))
}
