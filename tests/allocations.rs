//! A record that is not traced costs no allocation: this program counts them.

use std::alloc::GlobalAlloc;
use std::alloc::Layout;
use std::alloc::System;
use std::cell::Cell;
use std::sync::Arc;

use brucke::types::ids::Offset;
use brucke::types::ids::PartitionId;
use brucke::types::ids::Timestamp;
use brucke::types::trace::Parents;
use brucke::types::trace::RecordPlace;
use brucke::types::trace::Sampler;
use brucke::types::trace::SamplingRules;
use brucke::types::trace::Share;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: everything is the system allocator's; a counter is no allocation.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Counts the allocations of a look at a record with these headers.
fn allocations(sampler: &Sampler, headers: &[(&str, &[u8])], traced: bool) -> u64 {
    let before = ALLOCATIONS.get();
    for offset in 0..1_000 {
        let place = RecordPlace {
            topic: "orders",
            partition: PartitionId::from_index(0),
            offset: Offset::from_kafka(offset).expect("not negative"),
            timestamp: Timestamp::from_millis(0),
        };
        let found =
            sampler.sample(&place, headers.iter().map(|(name, value)| (*name, Some(*value))));
        assert_eq!(found.is_some(), traced);
    }
    ALLOCATIONS.get() - before
}

#[test]
fn deciding_on_a_record_allocates_nothing() {
    let unsampled: &[u8] = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
    let sampled: &[u8] = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let b3: &[u8] = b"4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0";
    let rules = |roots| SamplingRules {
        parents: Parents::Respected,
        roots,
        force_header: Some("brucke-trace".to_owned()),
    };
    let on = Sampler::On(Arc::new(rules(Share::NONE)));
    let all = Sampler::On(Arc::new(rules(Share::ALL)));
    assert_eq!(allocations(&Sampler::Off, &[("traceparent", sampled)], false), 0);
    assert_eq!(allocations(&on, &[], false), 0);
    assert_eq!(allocations(&on, &[("tenant", b"acme"), ("traceparent", unsampled)], false), 0);
    assert_eq!(allocations(&on, &[("b3", b3)], false), 0);
    assert_eq!(allocations(&on, &[("traceparent", sampled)], true), 0);
    assert_eq!(allocations(&all, &[], true), 0);
    // The counter counts.
    let before = ALLOCATIONS.get();
    drop(Box::new(7));
    assert!(ALLOCATIONS.get() > before);
}
