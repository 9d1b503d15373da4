from tests.database.test_retention import *
