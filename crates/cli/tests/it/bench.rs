//! The workloads run; how fast is not asked here.

use crate::support::{Scratch, exit};

#[test]
fn every_workload_measures_something() {
    let scratch = Scratch::new();
    let measured = scratch
        .run(&["bench", "w1", "W2", "W3", "W4", "--quick"])
        .expect(exit::DONE);
    let figures = measured.all("figure");
    for workload in ["W1", "W2", "W3", "W4"] {
        assert!(figures.iter().any(|figure| figure["workload"] == workload));
    }
    for figure in figures {
        let number = figure["figure"].as_f64().expect("a number");
        assert!(number.is_finite() && number >= 0.0, "{figure}");
    }
    scratch
        .run(&["bench", "W99"])
        .expect(exit::USAGE)
        .says(&["W99", "W1, W2"]);
}
