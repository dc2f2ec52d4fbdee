"""The command as `python -m keras_redundancy_command`."""

import sys

from keras_redundancy_command import main

sys.exit(main())
