//! Runtime environments: what workers are started with, and the directories that they run in.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use heliostat_package::{Limits, UnpackError};
use heliostat_proto::{EnvId, EnvSpec, Fact, Failure, PackageHash, WorkerId};

use crate::daemon::Daemon;
use crate::debugger;
use crate::spawner::{Launch, NODE_OPTIONS, Order};

/// The environments that processes made known, and the packages that are being unpacked for them.
#[derive(Debug)]
pub(crate) struct Envs {
    specs: HashMap<EnvId, EnvSpec>,
    /// Orders that wait until a package is unpacked.
    unpacking: HashMap<PackageHash, Vec<Order>>,
    /// Where packages and their copies are.
    directory: PathBuf,
    /// What workers are started ahead of need for; `None` until a driver says it.
    ahead: Option<EnvId>,
    /// Ends what unpacks.
    stop: Arc<AtomicBool>,
}

impl Envs {
    pub(crate) fn new(directory: PathBuf, awaits_env: bool) -> Self {
        Self {
            specs: HashMap::new(),
            unpacking: HashMap::new(),
            directory,
            ahead: (!awaits_env).then(EnvId::default),
            stop: Arc::default(),
        }
    }

    /// Where packages are, as processes are told.
    pub(crate) fn packages(&self) -> String {
        self.directory.to_string_lossy().into_owned()
    }

    pub(crate) fn define(&mut self, env: EnvId, spec: EnvSpec) {
        self.specs.insert(env, spec);
    }

    pub(crate) fn is_known(&self, env: EnvId) -> bool {
        env == EnvId::default() || self.specs.contains_key(&env)
    }

    /// What an environment is.
    pub(crate) fn spec(&self, env: EnvId) -> EnvSpec {
        self.specs.get(&env).cloned().unwrap_or_default()
    }

    /// The failure of whoever wanted a worker of this environment, which did not start.
    pub(crate) fn failure(&self, env: EnvId, failure: Failure) -> Failure {
        let Some(spec) = self.specs.get(&env).filter(|_| failure.code != SETUP) else { return failure };
        let options = spec.env_vars.iter().any(|(name, _)| name == NODE_OPTIONS);
        let hint = if spec.exec_argv.is_empty() && !options {
            "see in the cause what its workers said, and correct runtimeEnv".to_owned()
        } else {
            format!("check that Node takes the flags of runtimeEnv ({}); `node --help` lists them", flags_of(spec))
        };
        let mut wrapped =
            Failure::new(SETUP, format!("the runtime environment could not be set up: {}", failure.message));
        wrapped.facts = failure.facts;
        wrapped.fact("cause", Fact::Text(failure.message)).hint(hint)
    }

    /// Ends what unpacks: the node stops.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Takes back the order of a worker that waits for its package.
    pub(crate) fn withdraw(&mut self, worker: WorkerId) -> bool {
        let mut orders = self.unpacking.values_mut();
        orders.any(|orders| orders.extract_if(.., |order| order.worker == worker).count() > 0)
    }
}

const SETUP: &str = "RUNTIME_ENV_SETUP";

fn flags_of(spec: &EnvSpec) -> String {
    let options = spec.env_vars.iter().filter(|(name, _)| name == NODE_OPTIONS).map(|(_, value)| value);
    spec.exec_argv.iter().chain(options).map(String::as_str).collect::<Vec<_>>().join(" ")
}

impl Daemon {
    /// What a worker of an environment is started with, its directory apart.
    pub(crate) fn launch(&self, env: EnvId) -> Launch {
        let EnvSpec { env_vars: mut vars, exec_argv, .. } = self.envs.spec(env);
        let taken: Vec<u16> = self.children.values().filter_map(|child| child.debug_port).collect();
        let (flags, mut debug_port) = debugger::with_own_port(exec_argv, &taken);
        let mut awaits_debugger = debugger::waits(&flags);
        if let Some((_, options)) = vars.iter_mut().find(|(name, _)| name == NODE_OPTIONS) {
            let (own, port) = debugger::with_own_port(options.split(' ').map(str::to_owned).collect(), &taken);
            awaits_debugger |= debugger::waits(&own);
            debug_port = debug_port.or(port);
            *options = own.join(" ");
        }
        Launch { directory: None, vars, flags, debug_port, awaits_debugger }
    }

    /// Starts a worker as soon as its directory is there.
    pub(crate) fn order(&mut self, env: EnvId, mut order: Order) {
        let Some(package) = self.envs.spec(env).package else { return self.place(order) };
        let directory = self.envs.directory.join(package.to_string());
        order.launch.directory = Some(directory.clone());
        if let Some(waiting) = self.envs.unpacking.get_mut(&package) {
            return waiting.push(order);
        }
        // Looked at each time: what runs there may have removed it.
        if directory.is_dir() {
            return self.place(order);
        }
        self.envs.unpacking.insert(package, vec![order]);
        let file = heliostat_package::file_of(&self.envs.directory, &package.0);
        let stop = Arc::clone(&self.envs.stop);
        let unpacked = tokio::task::spawn_blocking(move || {
            heliostat_package::unpack(&file, &package.0, &directory, Limits::default(), &stop)
        });
        let me = self.me.clone();
        self.tasks.spawn(async move {
            let result = unpacked.await.unwrap_or(Err(UnpackError::Stopped));
            if let Some(daemon) = me.upgrade() {
                daemon.borrow_mut().unpacked(package, &result);
            }
        });
    }

    fn unpacked(&mut self, package: PackageHash, result: &Result<(), UnpackError>) {
        for order in self.envs.unpacking.remove(&package).unwrap_or_default() {
            match result {
                Ok(()) => self.place(order),
                Err(error) => {
                    let hint = "make room in the directory for temporary files (init's tempDir) if it is full; a damaged \
                                package is made again by a new session";
                    let text = error.to_string();
                    let message = format!("the working directory could not be unpacked: {text}");
                    let failure = Failure::new(SETUP, message).hint(hint).fact("cause", Fact::Text(text));
                    self.start_failed(order.worker, failure);
                }
            }
        }
    }

    /// Keeps workers ahead of need, if it is known for what.
    pub(crate) fn start_ahead(&mut self) {
        if let Some(env) = self.envs.ahead {
            let actions = self.schedule.prestart(self.config.prestart, env);
            self.perform(actions);
        }
    }

    /// A driver says what its tasks need.
    pub(crate) fn start_ahead_for(&mut self, env: EnvId) {
        if self.envs.is_known(env) {
            self.envs.ahead = Some(env);
            self.start_ahead();
        }
    }
}
