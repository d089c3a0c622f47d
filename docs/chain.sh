#!/bin/sh
# The whole chain on made-up data, in minutes on a CPU: synthetic portraits -> databases -> GenHead -> static
# reconstructor -> Portrait4D-v2 -> reenactment -> metrics. Smoke sizes: it shows that everything fits together, not
# pictures worth looking at. Two minutes of CPU time on one thread (111 seconds were measured). Run it as `make chain`, or
# with another folder and numbers:
#   OUT=/tmp/chain IDENTITIES=4 FRAMES=3 KIMG=0.008 PYTHON=.venv/bin/python sh docs/chain.sh
set -eu
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-.venv/bin/python} OUT=${OUT:-chain} IDENTITIES=${IDENTITIES:-8} FRAMES=${FRAMES:-6} KIMG=${KIMG:-0.032}
START=0.008
END=$("$PYTHON" -c "print($START + $KIMG)")
newest() { ls "$1"/*/network-snapshot-*.safetensors | tail -n 1; }

echo "== portraits and clips of the open head world, 64 pixels"
"$PYTHON" portrait4d/write_synthetic_portraits.py --out "$OUT/portraits" --identities "$IDENTITIES" --resolution 64 --seed 1
"$PYTHON" portrait4d/write_synthetic_portraits.py --out "$OUT/clips" --identities 2 --clips 2 --frames "$FRAMES" --fps 4 \
    --resolution 64 --seed 2

echo "== databases"
"$PYTHON" generate_lmdb/ffhq/generate_lmdb.py --data_dir "$OUT/portraits" --output_dir "$OUT/data" --resolution 64 \
    --rebalance none
"$PYTHON" generate_lmdb/vfhq/generate_lmdb.py --data_dir "$OUT/clips" --output_dir "$OUT/data" --resolution 64 \
    --frames "$FRAMES"

echo "== GenHead"
"$PYTHON" portrait4d/train_genhead.py --cfg genhead-smoke.yaml --outdir "$OUT/genhead" --quiet \
    data.path="$(ls -d "$OUT"/data/FFHQ_64_*)" run.kimg="$KIMG"
"$PYTHON" portrait4d/gen_images_genhead.py --network "$(newest "$OUT/genhead")" --outdir "$OUT/heads" --seeds 0-1 --frames 2
"$PYTHON" portrait4d/calc_metrics_deform.py --network "$(newest "$OUT/genhead")" --data "$(ls -d "$OUT"/data/FFHQ_64_*)" \
    --metrics fid8 --detector pixels16

echo "== static reconstructor, from the same world"
"$PYTHON" portrait4d/train_recon_v1.py --cfg portrait4d-smoke.yaml --outdir "$OUT/static" --quiet \
    static=true motion=exact network.motion_kind=pdfgc validation.subjects=0 run.kimg="$KIMG"

echo "== Portrait4D-v2, from the static one, on the clips"
"$PYTHON" portrait4d/train_recon_v2.py --cfg portrait4d-v2-smoke.yaml --outdir "$OUT/v2" --quiet \
    data.path="$(ls -d "$OUT"/data/VFHQ_*)" pseudo.network="$(newest "$OUT/static")" \
    start.weights="$(newest "$OUT/static")" validation.subjects=0 run.kimg="$END"

echo "== reenactment"
"$PYTHON" portrait4d/gen_images_portrait4d.py --network "$(newest "$OUT/v2")" --srcdir "$OUT/portraits/00000" \
    --tardir "$OUT/clips/clip-00000" --outdir "$OUT/reenacted" --render_size 16 --grid

echo "== metrics, of a clip"
"$PYTHON" portrait4d/calc_metrics_recon.py --network "$(newest "$OUT/v2")" --protocol folder --data "$OUT/clips/clip-00000" \
    --encoder synthetic --detector pixels16 --outdir "$OUT/metrics" --verbose false
echo "== done: $OUT"
