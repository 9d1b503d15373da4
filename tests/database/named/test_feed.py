from tests.database.test_feed import *
