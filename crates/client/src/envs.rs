//! Runtime environments of tasks: merged over what they inherit, packed, named, and made known to the daemon.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use heliostat_package::{Limits, PackError};
use heliostat_proto::message::{ToDaemon, Welcome};
use heliostat_proto::{EnvId, EnvSpec, Fact, Failure, PackageHash};

use crate::client::Client;

/// What a program asks for. What is left out is inherited.
#[derive(Debug, Clone, Default)]
pub struct EnvWish {
    /// A directory to pack.
    pub working_dir: Option<PathBuf>,
    /// Variables that are set besides the inherited ones.
    pub env_vars: Vec<(String, String)>,
    /// Flags of Node, in place of the inherited ones.
    pub exec_argv: Option<Vec<String>>,
}

/// An environment, or why its directory could not be packed.
#[derive(Debug, Clone, Default)]
struct Made {
    env: EnvSpec,
    failure: Option<Box<Failure>>,
}

/// The environments of this process's tasks.
#[derive(Debug)]
pub(crate) struct Envs {
    packages: PathBuf,
    /// What tasks have that ask for nothing: the worker's own, or the job's.
    inherited: EnvId,
    /// All that were made known.
    known: HashMap<EnvId, Made>,
}

impl Envs {
    pub(crate) fn new(welcome: &Welcome) -> Self {
        let own = Made { env: welcome.env.clone(), failure: None };
        let inherited = own.id();
        let packages = PathBuf::from(&welcome.packages);
        // The daemon started this process for its environment: it knows that.
        Self { packages, inherited, known: HashMap::from([(inherited, own)]) }
    }

    fn merge(&self, wish: EnvWish) -> Made {
        let mut made = self.known.get(&self.inherited).cloned().unwrap_or_default();
        if let Some(directory) = &wish.working_dir {
            (made.env.package, made.failure) = match self.pack(directory) {
                Ok(package) => (Some(package), None),
                Err(error) => (None, Some(Box::new(failure(directory, &error)))),
            };
        }
        let mut vars: BTreeMap<String, String> = made.env.env_vars.into_iter().collect();
        vars.extend(wish.env_vars);
        made.env.env_vars = vars.into_iter().collect();
        if let Some(flags) = wish.exec_argv {
            made.env.exec_argv = flags;
        }
        made
    }

    fn pack(&self, directory: &Path) -> Result<PackageHash, PackError> {
        let wrote = |source| PackError::Write { path: self.packages.clone(), source };
        std::fs::create_dir_all(&self.packages).map_err(wrote)?;
        // The sessions of this user may lie in the directory.
        let sessions: Vec<PathBuf> = self.packages.ancestors().nth(2).map(Path::to_owned).into_iter().collect();
        let packed = heliostat_package::pack(directory, &self.packages, &sessions, Limits::default())?;
        Ok(PackageHash(packed.hash))
    }
}

impl Made {
    fn id(&self) -> EnvId {
        if self.env.is_plain() && self.failure.is_none() {
            return EnvId::default();
        }
        // Plain data of a known shape: it cannot fail to be encoded.
        let bytes = postcard::to_stdvec(&(&self.env, &self.failure)).unwrap_or_default();
        EnvId(heliostat_package::hash(&bytes))
    }
}

fn failure(directory: &Path, error: &PackError) -> Failure {
    let text = error.to_string();
    Failure::new("RUNTIME_ENV_SETUP", format!("the working directory {} cannot be packed: {text}", directory.display()))
        .hint(error.hint())
        .fact("cause", Fact::Text(text))
}

impl Client {
    /// Makes an environment known: what is wished, over what is inherited. A directory is packed here and now. One that
    /// cannot be packed gives an environment whose tasks fail, see [`Self::unfit`].
    pub fn prepare_env(&self, wish: EnvWish) -> EnvId {
        let mut envs = self.shared.envs.lock().unwrap_or_else(PoisonError::into_inner);
        let made = envs.merge(wish);
        let env = made.id();
        if let Entry::Vacant(unknown) = envs.known.entry(env) {
            if made.failure.is_none() {
                // On the same connection as the requests that name it, so that it comes before them.
                self.shared.daemon.send(&ToDaemon::DefineEnv { env, spec: made.env.clone() });
            }
            unknown.insert(made);
        }
        env
    }

    /// The environment of tasks that ask for none.
    pub fn inherited_env(&self) -> EnvId {
        self.shared.envs.lock().unwrap_or_else(PoisonError::into_inner).inherited
    }

    /// Sets it, for a driver; workers are started for it ahead of need.
    pub fn inherit_env(&self, wish: EnvWish) {
        let env = self.prepare_env(wish);
        self.shared.envs.lock().unwrap_or_else(PoisonError::into_inner).inherited = env;
        if self.unfit(env).is_none() {
            self.shared.daemon.send(&ToDaemon::StartAhead { env });
        }
    }

    /// Why tasks of this environment cannot run, if that is known already.
    pub fn unfit(&self, env: EnvId) -> Option<Box<Failure>> {
        let envs = self.shared.envs.lock().unwrap_or_else(PoisonError::into_inner);
        envs.known.get(&env).and_then(|made| made.failure.clone())
    }
}
