//! Couriers: each says once a second where it is. All shops share one topic, in
//! which a header says whose courier it is.

use std::f64::consts::TAU;

use fastrand::Rng;

use crate::app::demo::world::Draft;
use crate::app::demo::world::Shop;
use crate::types::ids::TopicName;

/// The couriers of one shop. Different shops' couriers have the same names.
#[derive(Debug)]
pub struct Fleet {
    shop: &'static Shop,
    couriers: Vec<Courier>,
    steps: usize,
}

#[derive(Debug)]
struct Courier {
    vehicle: &'static Vehicle,
    number: u8,
    /// Metres north and east of the middle of the city.
    north: f64,
    east: f64,
    /// In radians, clockwise from north.
    heading: f64,
}

#[derive(Debug)]
struct Vehicle {
    name: &'static str,
    count: u8,
    metres_per_second: f64,
}

const VEHICLES: [Vehicle; 2] = [
    Vehicle { name: "bike", count: 5, metres_per_second: 5.5 },
    Vehicle { name: "van", count: 3, metres_per_second: 9.5 },
];

impl Fleet {
    /// Sends the couriers of a shop out.
    pub fn new(shop: &'static Shop) -> Self {
        let mut couriers = Vec::new();
        for vehicle in &VEHICLES {
            couriers.extend((1..=vehicle.count).map(|number| Courier {
                vehicle,
                number,
                north: 0.0,
                east: 0.0,
                heading: f64::from(number) + vehicle.metres_per_second,
            }));
        }
        Self { shop, couriers, steps: 0 }
    }

    /// Moves those whose turn it is.
    pub fn step(&mut self, random: &mut Rng) -> Vec<Draft> {
        let Self { shop, couriers, steps } = self;
        *steps += 1;
        let turn = |index: &usize| index % STEPS_PER_REPORT == *steps % STEPS_PER_REPORT;
        let due = couriers.iter_mut().enumerate().filter(|(index, _)| turn(index));
        due.map(|(_, courier)| courier.ride(shop, random)).collect()
    }
}

impl Courier {
    fn ride(&mut self, shop: &Shop, random: &mut Rng) -> Draft {
        let speed = self.vehicle.metres_per_second * (0.6 + 0.8 * random.f64());
        self.heading += (random.f64() - 0.5) * 0.9;
        // Who gets too far out of the city turns back.
        if self.north.hypot(self.east) > RADIUS_METRES {
            self.heading = (-self.east).atan2(-self.north);
        }
        self.heading = self.heading.rem_euclid(TAU);
        self.north += speed * self.heading.cos();
        self.east += speed * self.heading.sin();
        let latitude = shop.latitude + self.north / METRES_PER_DEGREE;
        let metres_per_degree = METRES_PER_DEGREE * shop.latitude.to_radians().cos();
        let longitude = shop.longitude + self.east / metres_per_degree;
        let (kmh, degrees) = (speed * 3.6, self.heading.to_degrees());
        Draft {
            topic: topic(),
            key: format!("{}-{}", self.vehicle.name, self.number),
            value: Some(format!(
                r#"{{"lat":{latitude:.5},"lon":{longitude:.5},"kmh":{kmh:.1},"heading":{degrees:.0}}}"#
            )),
            tenant: Some(shop.name),
        }
    }
}

/// Returns the topic of all couriers.
pub fn topic() -> TopicName {
    TopicName::new("couriers")
}

const STEPS_PER_REPORT: usize = 10;
/// How far couriers go.
const RADIUS_METRES: f64 = 1_200.0;
const METRES_PER_DEGREE: f64 = 111_320.0;

#[cfg(test)]
mod tests {
    use super::*;

    use crate::app::demo::world::SHOPS;

    #[test]
    fn couriers_stay_near_their_city() {
        let mut random = Rng::with_seed(5);
        let mut fleet = Fleet::new(&SHOPS[1]);
        for _ in 0..100_000 {
            fleet.step(&mut random);
        }
        for courier in &fleet.couriers {
            let distance = courier.north.hypot(courier.east);
            assert!(distance < RADIUS_METRES + 200.0, "{courier:?}");
        }
    }

    #[test]
    fn each_reports_once_a_second() {
        let mut random = Rng::with_seed(5);
        let mut fleet = Fleet::new(&SHOPS[1]);
        let second: Vec<_> = (0..STEPS_PER_REPORT).flat_map(|_| fleet.step(&mut random)).collect();
        let mut keys: Vec<_> = second.iter().map(|draft| draft.key.as_str()).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!((second.len(), keys.len()), (8, 8));
    }
}
