from tests.database.test_batches import *
