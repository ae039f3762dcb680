//! Arguments that do not fit each other, or that no kernel takes.

use super::*;
use tightrope_device::Tensor;

#[test]
fn arguments_that_do_not_fit_are_refused() {
    let cpu = Cpu::new(1).unwrap();
    let zeros = |dtype, len: usize| Tensor::zeros(&cpu, dtype, &[len]).unwrap();
    let ranges = on(&cpu, &ranges(&[(2, 3), (1, 1)]));
    let config = Config {
        ranges: &ranges,
        heads: 4,
        kv_heads: 2,
        head_dim: 8,
        scale: 1.0,
        window: None,
        softcap: None,
    };
    let forward = |wrong: &str, dtype: DType, config: Config<'_, Cpu>| {
        let [q, k, v, mut y, mut lse] = [("q", 96), ("k", 64), ("v", 64), ("y", 96), ("lse", 12)]
            .map(|(name, len)| match (name == wrong, dtype) {
                (true, DType::F32) => zeros(DType::F32, len - 1),
                (true, dtype) => zeros(dtype, len),
                (false, _) => zeros(DType::F32, len),
            });
        let forward = Forward {
            q: q.view(),
            k: k.view(),
            v: v.view(),
            y: y.view_mut(),
            lse: lse.view_mut(),
            config,
        };
        forward.check().map_err(|error| error.to_string())
    };
    assert_eq!(forward("none", DType::F32, config), Ok(()));
    for wrong in ["q", "k", "v", "y", "lse"] {
        for dtype in [DType::F32, DType::U32] {
            let error = forward(wrong, dtype, config).unwrap_err();
            assert!(error.contains(&format!("`{wrong}`")), "{wrong}: {error}");
        }
    }
    for (name, config) in [
        ("heads", Config { heads: 3, ..config }),
        (
            "window",
            Config {
                window: Some(0),
                ..config
            },
        ),
        (
            "softcap",
            Config {
                softcap: Some(0.0),
                ..config
            },
        ),
    ] {
        let error = forward("none", DType::F32, config).unwrap_err();
        assert!(error.contains(name), "{error}");
    }
    let first = Range::rows(0, 2);
    let reader = Range::rows(2, 1).after(&first);
    for wrong in [
        // No range before it, not all keys of the range, a range with a prefix, its own keys.
        vec![Range {
            prefix_len: 1,
            ..Range::rows(1, 2)
        }],
        vec![
            first,
            Range {
                prefix_len: 1,
                ..reader
            },
        ],
        vec![first, reader, Range::rows(3, 1).after(&reader)],
        vec![first, Range::rows(2, 1).after(&Range::rows(2, 1))],
    ] {
        let ranges = on(&cpu, &wrong);
        let config = Config {
            ranges: &ranges,
            ..config
        };
        let error = forward("none", DType::F32, config).unwrap_err();
        assert!(
            error.contains("`ranges`") && error.contains("prefix"),
            "{error}"
        );
    }
}

#[test]
fn heads_without_a_kernel_are_refused() {
    let case = Case::new(&[(2, 2)], (1, 1, 257));
    let q = tensor(cuda(), DType::F32, &[case.q.len()], &case.q);
    let ranges = on(cuda(), &case.ranges);
    let (mut y, mut lse) = (
        tensor(cuda(), DType::F32, &[case.q.len()], &case.q),
        tensor(cuda(), DType::F32, &[2], &[0.0; 2]),
    );
    let forward = Forward {
        q: q.view(),
        k: q.view(),
        v: q.view(),
        y: y.view_mut(),
        lse: lse.view_mut(),
        config: Config {
            ranges: &ranges,
            heads: 1,
            kv_heads: 1,
            head_dim: 257,
            scale: 1.0,
            window: None,
            softcap: None,
        },
    };
    let error = cuda().attention_forward(forward.checked().unwrap());
    assert!(error.unwrap_err().to_string().contains("257"));
}
