//! Orders: each changes its status until it is delivered or cancelled.

use fastrand::Rng;

use crate::app::demo::world::Draft;
use crate::app::demo::world::Shop;
use crate::types::ids::TopicName;

/// The orders of one shop that are under way.
#[derive(Debug)]
pub struct OrderBook {
    shop: &'static Shop,
    open: Vec<Order>,
    next: u32,
}

#[derive(Debug)]
struct Order {
    number: u32,
    status: Status,
    cents: u32,
    items: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Placed,
    Paid,
    Packed,
    Shipped,
    Delivered,
    Cancelled,
    /// Its key has been cleared: a tombstone.
    Forgotten,
}

impl OrderBook {
    /// Opens the book of a shop.
    pub fn new(shop: &'static Shop) -> Self {
        Self { shop, open: Vec::new(), next: FIRST }
    }

    /// Lets some order go on, now and then.
    pub fn step(&mut self, random: &mut Rng) -> Option<Draft> {
        if random.f64() > CHANGES_PER_STEP {
            return None;
        }
        let index = random.usize(..OPEN_MAX);
        let Some(order) = self.open.get_mut(index) else {
            let order = Order::place(self.next, random);
            self.next += 1;
            let draft = draft(self.shop, &order);
            self.open.push(order);
            return Some(draft);
        };
        order.status = order.status.next(random);
        let draft = draft(self.shop, order);
        if matches!(order.status, Status::Delivered | Status::Forgotten) {
            self.open.remove(index);
        }
        Some(draft)
    }
}

impl Order {
    fn place(number: u32, random: &mut Rng) -> Self {
        let items = random.u8(1..=6);
        let cents = u32::from(items) * random.u32(450..6_000);
        Self { number, status: Status::Placed, cents, items }
    }
}

impl Status {
    fn next(self, random: &mut Rng) -> Self {
        match self {
            Self::Placed if random.f64() < CANCELLED_PART => Self::Cancelled,
            Self::Placed => Self::Paid,
            Self::Paid => Self::Packed,
            Self::Packed => Self::Shipped,
            Self::Shipped | Self::Delivered => Self::Delivered,
            Self::Cancelled | Self::Forgotten => Self::Forgotten,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Placed => "placed",
            Self::Paid => "paid",
            Self::Packed => "packed",
            Self::Shipped => "shipped",
            Self::Delivered => "delivered",
            Self::Cancelled | Self::Forgotten => "cancelled",
        }
    }
}

/// Returns the topic of a shop's orders: each shop has its own.
pub fn topic(shop: &Shop) -> TopicName {
    TopicName::new(format!("{}.orders", shop.name))
}

fn draft(shop: &Shop, order: &Order) -> Draft {
    let Order { number, status, cents, items } = order;
    let currency = if shop.country == "ch" { "CHF" } else { "EUR" };
    let value = format!(
        r#"{{"status":"{}","total":"{currency} {}.{:02}","items":{items},"city":"{}"}}"#,
        status.name(),
        cents / 100,
        cents % 100,
        shop.city,
    );
    Draft {
        topic: topic(shop),
        key: format!("{}-{number}", shop.country),
        value: (*status != Status::Forgotten).then_some(value),
        tenant: None,
    }
}

/// Number of the first order.
const FIRST: u32 = 1_001;
/// Orders of one shop that are under way at once.
const OPEN_MAX: usize = 24;
/// Changes of one shop's orders in one step, on average.
const CHANGES_PER_STEP: f64 = 0.35;
/// The part of the orders that is cancelled before it is paid.
const CANCELLED_PART: f64 = 0.12;

#[cfg(test)]
mod tests {
    use super::*;

    use crate::app::demo::world::SHOPS;

    #[test]
    fn an_order_ends_delivered_or_cleared() {
        let mut random = Rng::with_seed(3);
        let mut book = OrderBook::new(&SHOPS[0]);
        let mut last = std::collections::BTreeMap::new();
        for _ in 0..20_000 {
            if let Some(draft) = book.step(&mut random) {
                last.insert(draft.key, draft.value);
            }
            assert!(book.open.len() <= OPEN_MAX);
        }
        let open: Vec<_> = book.open.iter().map(|order| format!("at-{}", order.number)).collect();
        for (key, value) in last.iter().filter(|(key, _)| !open.contains(key)) {
            assert!(value.as_ref().is_none_or(|value| value.contains("delivered")), "{key}");
        }
        assert!(last.values().any(Option::is_none), "some orders are cleared");
    }
}
