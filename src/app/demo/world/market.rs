//! Prices: the ticks of a few symbols, which every tenant may see.

use fastrand::Rng;

use crate::app::demo::world::Draft;
use crate::types::ids::TopicName;

/// The symbols and where each stands.
#[derive(Debug)]
pub struct Market {
    prices: Vec<Price>,
}

#[derive(Debug)]
struct Price {
    symbol: &'static str,
    value: f64,
    decimals: usize,
}

impl Market {
    /// Opens the market.
    pub fn new() -> Self {
        let price = |&(symbol, value, decimals)| Price { symbol, value, decimals };
        Self { prices: SYMBOLS.iter().map(price).collect() }
    }

    /// Lets some symbols tick.
    pub fn step(&mut self, random: &mut Rng) -> Vec<Draft> {
        let mut drafts = Vec::new();
        for price in &mut self.prices {
            if random.f64() < TICKS_PER_STEP {
                drafts.push(price.tick(random));
            }
        }
        drafts
    }
}

impl Default for Market {
    fn default() -> Self {
        Self::new()
    }
}

impl Price {
    fn tick(&mut self, random: &mut Rng) -> Draft {
        self.value *= 1.0 + (random.f64() - 0.5) * SWING;
        let (bid, ask) = (self.value, self.value * (1.0 + SPREAD));
        let decimals = self.decimals;
        Draft {
            topic: topic(),
            key: self.symbol.to_owned(),
            value: Some(format!(r#"{{"bid":{bid:.decimals$},"ask":{ask:.decimals$}}}"#)),
            tenant: None,
        }
    }
}

/// Returns the topic of all prices.
pub fn topic() -> TopicName {
    TopicName::new("prices")
}

/// Symbol, price to begin with, decimals.
const SYMBOLS: [(&str, f64, usize); 8] = [
    ("EURUSD", 1.1642, 5),
    ("EURCHF", 0.9318, 5),
    ("EURGBP", 0.8734, 5),
    ("USDJPY", 154.31, 3),
    ("XAUUSD", 4_118.4, 2),
    ("XAGUSD", 51.27, 3),
    ("COCOA", 5_120.0, 1),
    ("COFFEE", 398.2, 2),
];
/// Ticks of one symbol in one step, on average.
const TICKS_PER_STEP: f64 = 0.12;
/// Largest change of one tick, up and down together.
const SWING: f64 = 0.0004;
const SPREAD: f64 = 0.0001;
