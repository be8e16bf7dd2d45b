//! What leads to the simulated App Store Connect, and elsewhere: elsewhere nothing may ever come.

use std::{future::pending, sync::Arc, time::Duration};

use catalog_sync::{asc::InProcess, metrics::Unanswered, simulator::Simulator};
use reqwest::{Url, header::HeaderValue};

use super::{life::Life, world::World};

pub(super) const HOME: &str = "http://app-store.example";
pub(super) const ELSEWHERE: &str = "http://elsewhere.example";

pub(super) struct Network {
    pub(super) simulator: Simulator,
    pub(super) world: Arc<World>,
}

impl Network {
    /// One worker's way to it.
    pub(super) fn line(network: &Arc<Self>, life: &Arc<Life>) -> InProcess {
        let (network, life) = (Arc::clone(network), Arc::clone(life));
        Arc::new(move |url, token| {
            let (network, life) = (Arc::clone(&network), Arc::clone(&life));
            Box::pin(async move { network.carry(&life, &url, token).await })
        })
    }

    async fn carry(
        &self,
        life: &Life,
        url: &Url,
        token: Option<HeaderValue>,
    ) -> Result<reqwest::Response, Unanswered> {
        let (delay, fate) = self.draw();
        tokio::time::sleep(delay).await;
        if url.origin() != HOME.parse::<Url>().unwrap().origin() {
            let mut inner = self.world.lock();
            inner.wrong(format!("origin: {} sent a token to {url}", life.name));
            return Err(Unanswered::Refused);
        }
        match fate {
            "" => {}
            "silence" => pending().await,
            "connection refused" => return Err(Unanswered::Refused),
            _ => return Err(Unanswered::Lost),
        }
        self.simulator.set_clock(life.now());
        let answer = self.simulator.answer(url, token).await;
        let mut inner = self.world.lock();
        inner.tally.requests += 1;
        let told = match &answer {
            Ok(response) => response.status().as_u16().to_string(),
            Err(why) => format!("{why:?}"),
        };
        inner.tell(
            life.now(),
            &life.name,
            &format!("GET {}: {told}", url.path()),
        );
        answer
    }

    fn draw(&self) -> (Duration, &'static str) {
        let mut inner = self.world.lock();
        let longest = if inner.random.below(20) == 0 {
            6_000
        } else {
            400
        };
        let delay = Duration::from_millis(inner.random.next() % longest + 5);
        let rate = inner.rates.unconnected;
        let fate = if inner.one_in(rate) {
            let fate = ["silence", "connection refused", "connection lost"][inner.random.below(3)];
            inner.tally.count(fate);
            fate
        } else {
            ""
        };
        (delay, fate)
    }
}
