"""Recovery from poor starting strides, the paper's central claim: accuracy, true cost and learned strides by start.

Data: any manifest of audio with a train/valid/test split (--label names its column); or images: CIFAR-10 or CIFAR-100
    (--data cifar10, with --download where it is not there), or a folder with train/ and val/ of class folders.
Command: python recipes/random_strides.py --arch resnet18 --data MANIFEST --label COLUMN --seeds 0 1
    python recipes/random_strides.py --arch audio --data MANIFEST --label COLUMN
    python recipes/random_strides.py --arch resnet18 --data cifar10 --download --preset paper --seeds 0 1 2
Expected: see recipes/RESULTS.md, Poor starting strides. Tables (table.md) and a figure (figure3.png, figure3.svg): test
    accuracy of strided convolution, spectral pooling and DiffStride for each start, as in the paper's Table 3, with the
    true multiply-adds of the trained networks and the paper's figures on CIFAR beside them; strides that were learned.
Hardware: --preset quick suits two CPU cores (width 0.125, 400 steps); --preset paper wants a GPU.
Time: ten spoken words on two cores 40 minutes; --smoke under a minute. A finished run is not trained again, a stopped
    one goes on.
"""

import sys

from lab import main_random_strides

if __name__ == "__main__":
    sys.exit(main_random_strides(__doc__))
