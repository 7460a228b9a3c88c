//! The service from its first connection to its end: by a signal, or because the next process has taken over.

use std::collections::HashSet;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::path::PathBuf;

use anyhow::{Context, Result};
use carnet_proxy::{Options, Reporter, Service, Summary};
use sd_notify::NotifyState;
use tokio::sync::oneshot;

use super::hand_over::{HandOver, Offer, sort_listeners};
use super::signals::EndSignals;
use super::told::Told;

/// A service that has its listeners, and accepts nothing yet.
#[derive(Debug)]
pub struct Prepared {
    pub service: Service,
    hand_over: Option<(HandOver, Offer)>,
}

impl Prepared {
    /// Listens at these addresses, and takes the listeners over that the process before has there.
    pub fn new(listen: &[SocketAddr], options: Options, hand_over: Option<&PathBuf>) -> Result<Self> {
        let Some(path) = hand_over else {
            return Ok(Self { service: Service::bind(listen, options)?, hand_over: None });
        };
        let (hand_over, taken) = HandOver::begin(path)?;
        let sorted = sort_listeners(taken, listen);
        let kept = sorted.kept.into_iter().map(TcpListener::from).collect();
        let service = Service::bind_beside(kept, &sorted.missing, options)?;
        let duplicates = service.listeners().iter().map(|listener| listener.as_fd().try_clone_to_owned());
        let duplicates = duplicates.collect::<Result<_, _>>().context("cannot duplicate listeners")?;
        Ok(Self { service, hand_over: Some((hand_over, Offer::of(duplicates))) })
    }

    /// Serves. `None`: a second signal has cut it short.
    pub async fn serve(self, reporter: impl Reporter, told: &Told) -> Result<Option<Summary>> {
        let mut signals = EndSignals::caught()?;
        let mut addresses = self.service.addresses().context("cannot tell where it listens")?;
        // Several listeners may share one.
        let mut seen = HashSet::new();
        addresses.retain(|address| seen.insert(*address));
        let (begun, has_begun) = oneshot::channel();
        let (taken, is_taken) = oneshot::channel();
        let (handed, is_handed) = oneshot::channel();
        let (ending, has_ended) = oneshot::channel();
        let offer = self.hand_over.as_ref().map(|(_, offer)| offer.clone());

        // It is asked for the first time when the service has all that it needs to accept.
        let shutdown = async move {
            let _ = begun.send(());
            tokio::select! {
                () = signals.next() => {
                    if let Some(offer) = offer {
                        offer.withdraw();
                    }
                }
                Ok(next) = is_taken => {
                    let _ = handed.send(next);
                }
            }
            let _ = ending.send(signals);
        };
        let hand_over = self.hand_over;
        let begin = async {
            if has_begun.await.is_ok() {
                let begin = move |told: &Told| {
                    let before = hand_over.as_ref().and_then(|(hand_over, _)| hand_over.before());
                    if let Some((hand_over, offer)) = hand_over {
                        hand_over.complete(&offer, told, taken);
                    }
                    told.ready(&addresses, before);
                    notify(told, NotifyState::Ready);
                };
                aside(told, begin).await;
            }
        };
        let hand = async {
            if let Ok(next) = is_handed.await {
                aside(told, move |told| told.handed_over(next)).await;
            }
        };
        let again = async {
            match has_ended.await {
                Ok(mut signals) => {
                    notify(told, NotifyState::Stopping);
                    signals.next().await;
                }
                Err(_) => std::future::pending().await,
            }
        };
        let run = async { tokio::join!(self.service.run(reporter, shutdown), begin, hand) };
        tokio::select! {
            biased;
            (summary, (), ()) = run => Ok(Some(summary?)),
            () = again => {
                told.warn("a second signal: the flows that are open are reset");
                Ok(None)
            }
        }
    }
}

/// Does what may have to wait: for another process, or for a reader of standard output. Flows go on meanwhile.
async fn aside(told: &Told, act: impl FnOnce(&Told) + Send + 'static) {
    let told = told.clone();
    let _ = tokio::task::spawn_blocking(move || act(&told)).await;
}

/// Tells the service manager, where there is one that wants to know.
fn notify(told: &Told, state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        told.warn(&format!("cannot tell the service manager: {error}"));
    }
}
