from tests.database.test_lifecycle import *
