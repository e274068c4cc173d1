//! Several equal servers behind one face: tried in an order drawn by weight, a dead or lying one passed over.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use release_store::{Directory, StoreError, Transport, TransportError};

use crate::error::EngineError;
use crate::host::Host;
use crate::http::{self, Http};
use crate::meter::{BudgetSpent, Meter, Metered};

/// The first pause between two rounds over all servers.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest one.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The servers of a run.
pub struct Servers {
    servers: Vec<Box<dyn Transport>>,
    /// Places in `servers`, the one to ask first in front.
    order: RefCell<Vec<usize>>,
    meter: Arc<Meter>,
}

impl Servers {
    /// The servers at these addresses, in an order drawn by weight.
    pub fn from_addresses(addresses: &[(String, u16)], meter: &Arc<Meter>, host: &dyn Host) -> Self {
        let agent = http::agent();
        let servers = addresses.iter().filter_map(|(address, weight)| {
            let transport = open(address, &agent, meter)?;
            Some((transport, *weight))
        });
        Self::new(servers.collect(), meter, host)
    }

    /// These servers with their weights. They are metered already.
    pub fn new(servers: Vec<(Box<dyn Transport>, u16)>, meter: &Arc<Meter>, host: &dyn Host) -> Self {
        let mut pending: Vec<(usize, u64)> =
            servers.iter().enumerate().map(|(at, (_, weight))| (at, u64::from(*weight).max(1))).collect();
        let mut order = Vec::with_capacity(pending.len());
        while !pending.is_empty() {
            let total: u64 = pending.iter().map(|(_, weight)| weight).sum();
            let mut drawn = draw(host, total);
            let at = pending.iter().position(|(_, weight)| {
                let here = drawn < *weight;
                drawn = drawn.saturating_sub(*weight);
                here
            });
            order.push(pending.remove(at.unwrap_or(0)).0);
        }
        let servers = servers.into_iter().map(|(server, _)| server).collect();
        Self { servers, order: RefCell::new(order), meter: meter.clone() }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.servers.is_empty()
    }

    /// What went through, and what may.
    pub fn meter(&self) -> &Arc<Meter> {
        &self.meter
    }

    /// The servers, the one to ask first in front.
    pub fn in_order(&self) -> impl Iterator<Item = (usize, &dyn Transport)> {
        let order = self.order.borrow().clone();
        order.into_iter().map(|at| (at, &*self.servers[at]))
    }

    /// Puts a server that failed behind all others.
    pub fn demote(&self, server: usize) {
        let mut order = self.order.borrow_mut();
        if let Some(at) = order.iter().position(|known| *known == server) {
            order.remove(at);
            order.push(server);
        }
    }

    /// Asks one server after the other until one answers acceptably.
    ///
    /// # Errors
    /// `NoServers`; `LimitReached`; `NotAuthentic` where one answered with something that is not accepted; `OutOfDate` where all
    /// have only metadata that was; `NotThere` where all answered and none has it; else `Offline`.
    pub fn ask<R>(&self, mut ask: impl FnMut(&dyn Transport) -> Result<R, StoreError>) -> Result<R, EngineError> {
        let mut failures = Failures::default();
        for (at, server) in self.in_order() {
            match ask(server) {
                Ok(answer) => return Ok(answer),
                Err(error) => {
                    self.demote(at);
                    failures.add(&server.describe(), error, 0)?;
                }
            }
        }
        Err(failures.into_error())
    }
}

/// What the servers of one round answered.
#[derive(Default)]
pub(crate) struct Failures {
    tried: Vec<String>,
    forged: bool,
    /// How many have only what is out of date.
    out_of_date: usize,
    /// How many do not have it.
    missing: usize,
}

impl Failures {
    /// Takes in a server's failure. What ends the whole run is returned: `wanted` bytes were still missing.
    pub fn add(&mut self, server: &str, error: StoreError, wanted: u64) -> Result<(), EngineError> {
        let reason = innermost(&error);
        if let StoreError::Transport(TransportError::Stopped(reason)) = &error {
            if let Some(BudgetSpent(limit)) = reason.downcast_ref() {
                return Err(EngineError::LimitReached { limit: *limit, wanted });
            }
            if reason.downcast_ref::<EngineError>().is_none() && reason.downcast_ref::<StoreError>().is_none() {
                return Err(error.into());
            }
        }
        if let StoreError::Transport(TransportError::Stopped(reason)) = error {
            // A sink's own failure: the zone's ends the run, the content's is this server's fault.
            match reason.downcast::<EngineError>() {
                Ok(engine) => return Err(*engine),
                Err(_) => self.forged = true,
            }
        } else if matches!(error, StoreError::Transport(TransportError::NotFound { .. })) {
            self.missing += 1;
        } else if matches!(error, StoreError::Expired { .. } | StoreError::Rollback { .. }) {
            // Signed by whom it should be, once.
            self.out_of_date += 1;
        } else if matches!(error, StoreError::Transport(TransportError::TooLarge { .. }))
            || !matches!(error, StoreError::Transport(_))
        {
            self.forged = true;
        }
        self.tried.push(format!("{server}: {reason}"));
        Ok(())
    }

    /// What the round came to.
    pub fn into_error(self) -> EngineError {
        let tried = self.tried.join("; ");
        match self.tried.len() {
            0 => EngineError::NoServers,
            _ if self.forged => EngineError::NotAuthentic { tried },
            all if self.out_of_date == all => EngineError::OutOfDate { tried },
            all if self.missing == all => EngineError::NotThere { tried },
            _ => EngineError::Offline { tried },
        }
    }
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// A pause before round number `round` (from 0): doubled each time, between half and all of it at random.
pub fn pause(round: u32, host: &dyn Host) -> Duration {
    let longest = FIRST_PAUSE.saturating_mul(1 << round.min(10)).min(LONGEST_PAUSE);
    let half = longest / 2;
    half + Duration::from_millis(draw(host, half.as_millis() as u64 + 1))
}

/// A number below `limit`; 0 where there is no randomness, which costs nothing here but evenness.
fn draw(host: &dyn Host, limit: u64) -> u64 {
    let mut bytes = [0; 8];
    match host.random(&mut bytes) {
        Ok(()) => u64::from_le_bytes(bytes) % limit.max(1),
        Err(_) => 0,
    }
}

fn open(address: &str, agent: &ureq::Agent, meter: &Arc<Meter>) -> Option<Box<dyn Transport>> {
    let (scheme, rest) = address.split_once(':')?;
    match scheme.to_ascii_lowercase().as_str() {
        "http" | "https" => {
            let http = Http::new(agent.clone(), address, meter.clone());
            Some(Box::new(Metered::new(http, meter.clone())))
        }
        "file" => {
            let path = rest.strip_prefix("//").unwrap_or(rest);
            // `file:///C:/store` on Windows.
            let path = match path.as_bytes() {
                [b'/', _, b':', ..] if cfg!(windows) => &path[1..],
                _ => path,
            };
            Some(Box::new(Metered::new(Directory::new(path), meter.clone())))
        }
        _ => None,
    }
}
